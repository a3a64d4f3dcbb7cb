{{/* Pods of the two Jobs: their text is hashed into the Jobs' names. */}}

{{- define "kpatrol.setup.pod" }}
{{- $root := .root }}
metadata:
  {{- include "kpatrol.podmeta" . | nindent 2 }}
spec:
  serviceAccountName: {{ $root.Values.global.name }}-streams
  automountServiceAccountToken: false
  restartPolicy: OnFailure
  {{- include "kpatrol.placement" . | nindent 2 }}
  securityContext:
    {{- include "kpatrol.podsecurity" $root | nindent 4 }}
  initContainers:
    - name: topics
      {{- include "kpatrol.image" (dict "root" $root "image" $root.Values.streams.image) | nindent 6 }}
      command: [python3, -m, kpatrol, topics, apply, --patience-s, "300"{{ if $root.Values.kafka.bundled.enabled }}, --replication, "1"{{ else }}, --replication, {{ $root.Values.kafka.replication | quote }}{{ end }}]
      env:
        {{- include "kpatrol.kafka.env" . | nindent 8 }}
      {{- include "kpatrol.containersecurity" $root | nindent 6 }}
      resources:
        {{- toYaml $root.Values.setup.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- include "kpatrol.kafka.mounts" . | nindent 8 }}
  containers:
    - name: tables
      {{- include "kpatrol.image" (dict "root" $root "image" $root.Values.streams.image) | nindent 6 }}
      # A rollback finds the tables of a newer version and leaves them.
      command: [python3, -m, kpatrol, migrate, --keep-newer, --patience-s, "300"]
      env:
        {{- include "kpatrol.clickhouse.env" . | nindent 8 }}
        {{- include "kpatrol.tables.env" $root | nindent 8 }}
      {{- include "kpatrol.containersecurity" $root | nindent 6 }}
      resources:
        {{- toYaml $root.Values.setup.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- include "kpatrol.clickhouse.mounts" . | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- include "kpatrol.kafka.volumes" . | nindent 4 }}
    {{- include "kpatrol.clickhouse.volumes" . | nindent 4 }}
{{- end }}

{{- define "kpatrol.bootstrap.pod" }}
metadata:
  {{- include "kpatrol.podmeta" .at | nindent 2 }}
spec:
  serviceAccountName: {{ .at.name }}
  restartPolicy: OnFailure
  {{- include "kpatrol.placement" .at | nindent 2 }}
  securityContext:
    {{- include "kpatrol.podsecurity" . | nindent 4 }}
  containers:
    - name: bootstrap
      {{- include "kpatrol.image" (dict "root" .root "image" .root.Values.controller.image) | nindent 6 }}
      command:
        - python3
        - -m
        - controller.bootstrap
        - --days={{ .days }}
        {{- range .arguments }}
        - {{ . }}
        {{- end }}
      env:
        - name: KPATROL_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
      {{- include "kpatrol.containersecurity" . | nindent 6 }}
      resources:
        requests: {cpu: 10m, memory: 96Mi}
        limits: {memory: 256Mi}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 16Mi}
{{- end }}
