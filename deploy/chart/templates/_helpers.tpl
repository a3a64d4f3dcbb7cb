{{/* Names, labels, and the parts that every pod has. */}}

{{- define "kpatrol.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: kpatrol
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.global.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kpatrol.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* metadata's inside: name, namespace, labels, annotations. Arguments: root, name. */}}
{{- define "kpatrol.meta" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
{{ include "kpatrol.clustermeta" . }}
{{- end }}

{{- define "kpatrol.clustermeta" -}}
labels:
  {{- include "kpatrol.labels" . | nindent 2 }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.global.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A pod's labels and annotations. Arguments: root, name, values. */}}
{{- define "kpatrol.podmeta" -}}
labels:
  {{- include "kpatrol.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Arguments: root, image. */}}
{{- define "kpatrol.image" -}}
{{- $registry := .root.Values.global.imageRegistryOverride | default .image.registry }}
{{- $tag := .root.Values.global.imageTagOverride | default .image.tag | default .root.Chart.AppVersion }}
image: {{ with $registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end }}

{{/* Where a pod may run and what it may do there. Arguments: root, values. */}}
{{- define "kpatrol.placement" -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $class := .values.priorityClassName | default (ternary .root.Values.priorityClass.name "" .root.Values.priorityClass.create) }}
{{- with $class }}
priorityClassName: {{ . }}
{{- end }}
# Variables of Services would be taken for settings: our names begin alike.
enableServiceLinks: false
{{- end }}

{{- define "kpatrol.podsecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "kpatrol.containersecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Probes of a service with /livez and /readyz on the port named health. Arguments: startSeconds. */}}
{{- define "kpatrol.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 2
  failureThreshold: {{ div .startSeconds 2 }}
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* Kafka: variables of a role. Arguments: root, role. */}}
{{- define "kpatrol.kafka.bootstrap" -}}
{{- if .Values.kafka.bundled.enabled -}}
{{ .Values.global.name }}-kafka.{{ .Release.Namespace }}.svc.{{ .Values.global.clusterDnsDomain }}:9092
{{- else -}}
{{ required "kafka.external.bootstrap: expected host:port[,host:port…] where kafka.bundled.enabled is false" .Values.kafka.external.bootstrap }}
{{- end -}}
{{- end }}

{{- define "kpatrol.kafka.sasl" -}}
{{- if and (not .Values.kafka.bundled.enabled) (hasPrefix "SASL" .Values.kafka.external.securityProtocol) }}yes{{ end -}}
{{- end }}

{{- define "kpatrol.kafka.ca" -}}
{{- if not .Values.kafka.bundled.enabled }}{{ .Values.kafka.external.caSecret }}{{ end -}}
{{- end }}

{{- define "kpatrol.kafka.env" -}}
- {name: KPATROL_KAFKA_BOOTSTRAP, value: {{ include "kpatrol.kafka.bootstrap" .root | quote }}}
{{- if not .root.Values.kafka.bundled.enabled }}
- {name: KPATROL_KAFKA_SECURITY_PROTOCOL, value: {{ .root.Values.kafka.external.securityProtocol | quote }}}
{{- end }}
{{- if include "kpatrol.kafka.sasl" .root }}
- {name: KPATROL_KAFKA_SASL_MECHANISM, value: {{ .root.Values.kafka.external.saslMechanism | quote }}}
- {name: KPATROL_KAFKA_SASL_USERNAME, value: {{ index .root.Values.kafka.external.users .role | quote }}}
- {name: KPATROL_KAFKA_SASL_PASSWORD_FILE, value: /etc/kpatrol/kafka/password}
{{- end }}
{{- if include "kpatrol.kafka.ca" .root }}
- {name: KPATROL_KAFKA_SSL_CA_FILE, value: /etc/kpatrol/kafka-ca/ca.crt}
{{- end }}
- {name: KPATROL_LOG_LEVEL, value: {{ .root.Values.global.logLevel | quote }}}
{{- end }}

{{- define "kpatrol.kafka.mounts" -}}
{{- if include "kpatrol.kafka.sasl" .root }}
- {name: kafka, mountPath: /etc/kpatrol/kafka, readOnly: true}
{{- end }}
{{- if include "kpatrol.kafka.ca" .root }}
- {name: kafka-ca, mountPath: /etc/kpatrol/kafka-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "kpatrol.kafka.volumes" -}}
{{- if include "kpatrol.kafka.sasl" .root }}
- name: kafka
  secret:
    secretName: {{ required "kafka.external.saslSecret: expected a Secret's name where kafka.external.securityProtocol has SASL" .root.Values.kafka.external.saslSecret }}
    defaultMode: 0440
    items: [{key: {{ .role }}, path: password}]
{{- end }}
{{- with include "kpatrol.kafka.ca" .root }}
- name: kafka-ca
  secret:
    secretName: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end }}

{{/* ClickHouse: variables of an account. Arguments: root, account (writer or reader). */}}
{{- define "kpatrol.clickhouse.secret" -}}
{{- if .Values.clickhouse.bundled.enabled -}}
{{ .Values.global.name }}-clickhouse
{{- else -}}
{{ required "clickhouse.external.passwordSecret: expected a Secret's name where clickhouse.bundled.enabled is false" .Values.clickhouse.external.passwordSecret }}
{{- end -}}
{{- end }}

{{- define "kpatrol.clickhouse.ca" -}}
{{- if not .Values.clickhouse.bundled.enabled }}{{ .Values.clickhouse.external.caSecret }}{{ end -}}
{{- end }}

{{- define "kpatrol.clickhouse.url" -}}
{{- $values := .root.Values }}
{{- $user := .account }}
{{- $base := printf "http://%s-clickhouse.%s.svc.%s:8123" $values.global.name .root.Release.Namespace $values.global.clusterDnsDomain }}
{{- if not $values.clickhouse.bundled.enabled }}
{{- $base = required "clickhouse.external.url: expected http(s)://host:port where clickhouse.bundled.enabled is false" $values.clickhouse.external.url }}
{{- $user = index $values.clickhouse.external (printf "%sUser" .account) }}
{{- end }}
{{- $parts := splitn "://" 2 $base }}
{{- printf "%s://%s@%s/%s" $parts._0 $user (trimSuffix "/" $parts._1) $values.clickhouse.database }}
{{- end }}

{{- define "kpatrol.clickhouse.env" -}}
- {name: KPATROL_CLICKHOUSE_URL, value: {{ include "kpatrol.clickhouse.url" . | quote }}}
- {name: KPATROL_CLICKHOUSE_PASSWORD_FILE, value: /etc/kpatrol/clickhouse/password}
{{- if include "kpatrol.clickhouse.ca" .root }}
- {name: KPATROL_CLICKHOUSE_CA_FILE, value: /etc/kpatrol/clickhouse-ca/ca.crt}
{{- end }}
{{- end }}

{{- define "kpatrol.clickhouse.mounts" -}}
- {name: clickhouse, mountPath: /etc/kpatrol/clickhouse, readOnly: true}
{{- if include "kpatrol.clickhouse.ca" .root }}
- {name: clickhouse-ca, mountPath: /etc/kpatrol/clickhouse-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "kpatrol.clickhouse.volumes" -}}
- name: clickhouse
  secret:
    secretName: {{ include "kpatrol.clickhouse.secret" .root }}
    defaultMode: 0440
    items: [{key: {{ .account }}, path: password}]
{{- with include "kpatrol.clickhouse.ca" .root }}
- name: clickhouse-ca
  secret:
    secretName: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end }}

{{/* Tables' variables: the same for the Job that makes them and for those who wait for them. */}}
{{- define "kpatrol.tables.env" -}}
{{- if not .Values.clickhouse.bundled.enabled }}
{{- with .Values.clickhouse.external.cluster }}
- {name: KPATROL_CLICKHOUSE_CLUSTER, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- range $name, $days := .Values.clickhouse.retention }}
- {name: KPATROL_{{ snakecase $name | upper }}, value: {{ $days | quote }}}
{{- end }}
{{- end }}

{{/* An init container that waits for a role's topics, and for the tables where it has ClickHouse's door.
     Arguments: root, role, account ("" for none). */}}
{{- define "kpatrol.wait" -}}
- name: wait
  {{- include "kpatrol.image" (dict "root" .root "image" .root.Values.streams.image) | nindent 2 }}
  command: [python3, -m, kpatrol, wait, --role, {{ .role }}{{ if .account }}, --tables{{ end }}]
  env:
    {{- include "kpatrol.kafka.env" . | nindent 4 }}
    {{- if .account }}
    {{- include "kpatrol.clickhouse.env" . | nindent 4 }}
    {{- include "kpatrol.tables.env" .root | nindent 4 }}
    {{- end }}
  {{- include "kpatrol.containersecurity" . | nindent 2 }}
  resources:
    requests: {cpu: 10m, memory: 128Mi}
    limits: {memory: 512Mi}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- include "kpatrol.kafka.mounts" . | nindent 4 }}
    {{- if .account }}
    {{- include "kpatrol.clickhouse.mounts" . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "kpatrol.serverSecret" -}}
{{ .Values.tls.server.secretName }}
{{- end }}

{{- define "kpatrol.apiName" -}}
{{ .Values.global.name }}-api
{{- end }}

{{/* Storage of a bundled store: a volume, or nothing where a claim template makes it. Arguments: storage. */}}
{{- define "kpatrol.storage.volume" -}}
{{- if eq .storage.type "emptyDir" }}
- name: data
  emptyDir: {sizeLimit: {{ .storage.size }}}
{{- else if eq .storage.type "hostPath" }}
- name: data
  hostPath: {path: {{ required "storage.hostPath: expected a folder where storage.type is hostPath" .storage.hostPath }}, type: Directory}
{{- end }}
{{- end }}

{{- define "kpatrol.storage.claim" -}}
{{- if eq .storage.type "pvc" }}
volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .storage.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .storage.size }}
{{- end }}
{{- end }}
