"""The service's own metrics and spans, as the SDK sends them."""

from opentelemetry import metrics as metrics_api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from streams import telemetry
from streams.metrics import Metrics


def test_what_the_pages_show_goes_out_with_its_labels() -> None:
    metrics = Metrics()
    reader = InMemoryMetricReader()
    metrics_api.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
    telemetry.observe(metrics)
    metrics.add("kpatrol_rows_stored_total", 500, table="probe")
    metrics.add("kpatrol_rows_stored_total", 3, table="round")
    metrics.set("kpatrol_held_seconds", 1.5)
    with telemetry.inserting(table="probe", rows=500):
        pass
    found = reader.get_metrics_data()
    assert found is not None
    by_name = {m.name: m.data.data_points for m in found.resource_metrics[0].scope_metrics[0].metrics}
    stored = {point.attributes["table"]: point.value for point in by_name["kpatrol.rows_stored"]}
    assert stored == {"probe": 500, "round": 3}
    assert [point.value for point in by_name["kpatrol.held_seconds"]] == [1.5]
    (insert,) = by_name["db.client.operation.duration"]
    assert (insert.count, insert.attributes["db.collection.name"]) == (1, "probe")


def test_names_are_those_that_a_prometheus_reader_turns_back() -> None:
    assert telemetry.otlp_name("kpatrol_insert_seconds_total") == "kpatrol.insert_seconds"
