-- Failed requests in the layout of the OpenTelemetry Collector's table otel_traces, so that trace tools open them: one trace
-- per agent and round, a span per request. Bound Timestamp in WHERE. Attribute names: topics/columns.py.
CREATE OR REPLACE VIEW otel_traces ${ON_CLUSTER} AS
SELECT
    toDateTime64(ts, 9, 'UTC') AS Timestamp,
    lower(hex(trace_id)) AS TraceId,
    span_id AS SpanId,
    '' AS ParentSpanId,
    '' AS TraceState,
    if(proto IN ('http', 'https'), 'HTTP', concat('kpatrol.probe ', toString(proto))) AS SpanName,
    'Client' AS SpanKind,
    'kpatrol-agent' AS ServiceName,
    map(
        'service.name', 'kpatrol-agent',
        'service.instance.id', toString(agent),
        'k8s.cluster.name', toString(cluster),
        'k8s.node.name', toString(src_node),
        'k8s.pod.name', toString(src_pod),
        'cloud.availability_zone', toString(src_zone)
    ) AS ResourceAttributes,
    'kpatrol' AS ScopeName,
    '' AS ScopeVersion,
    map(
        'kpatrol.task', toString(task),
        'kpatrol.round.id', toString(round_id),
        'kpatrol.round.number', toString(round_number),
        'kpatrol.request.seq', toString(seq),
        'kpatrol.layer', toString(layer),
        'kpatrol.outcome', toString(outcome),
        'error.type', toString(error_type),
        'server.address', toString(dst),
        'network.protocol.name', toString(proto),
        'network.local.address', replaceOne(toString(src_ip), '::ffff:', ''),
        'network.local.port', toString(src_port),
        'network.peer.address', replaceOne(toString(dst_ip), '::ffff:', ''),
        'network.peer.port', toString(dst_port),
        'http.response.status_code', if(proto IN ('http', 'https') AND status > 0, toString(status), ''),
        'kpatrol.packets.sent', toString(sent),
        'kpatrol.packets.lost', toString(lost),
        'kpatrol.lateness', toString(lateness_us)
    ) AS SpanAttributes,
    toUInt64(dur_us) * 1000 AS Duration,
    'Error' AS StatusCode,
    concat(toString(outcome), if(error_type = '', '', concat(': ', toString(error_type)))) AS StatusMessage,
    CAST([], 'Array(DateTime64(9, \'UTC\'))') AS `Events.Timestamp`,
    CAST([], 'Array(LowCardinality(String))') AS `Events.Name`,
    CAST([], 'Array(Map(LowCardinality(String), String))') AS `Events.Attributes`,
    CAST([], 'Array(String)') AS `Links.TraceId`,
    CAST([], 'Array(String)') AS `Links.SpanId`,
    CAST([], 'Array(String)') AS `Links.TraceState`,
    CAST([], 'Array(Map(LowCardinality(String), String))') AS `Links.Attributes`
FROM probe
WHERE outcome NOT IN ('ok', 'unsent')
