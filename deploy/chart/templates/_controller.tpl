{{/* What the controller is told. */}}
{{- define "kpatrol.controller.env" -}}
{{- if eq .Values.controller.source "files" }}
- {name: KPATROL_TASK_DIR, value: /etc/kpatrol/tasks}
{{- else }}
- {name: KPATROL_TASK_SOURCE, value: kubernetes}
- name: KPATROL_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: KPATROL_POD
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: KPATROL_LEASE, value: {{ .Values.controller.name }}}
- {name: KPATROL_AGENT_DAEMONSET, value: {{ .Values.agent.name }}}
- {name: KPATROL_NETCHECKER_POST, value: {{ .Values.controller.netcheckerAcceptPosts | quote }}}
{{- end }}
- {name: KPATROL_CLUSTER, value: {{ .Values.global.cluster | quote }}}
- {name: KPATROL_STATE_DIR, value: /tmp/state}
- {name: KPATROL_LEAD_TIME_S, value: {{ .Values.controller.leadTimeSeconds | quote }}}
- {name: KPATROL_EXPECTED_AGENTS, value: {{ .Values.controller.expectedAgents | quote }}}
- {name: KPATROL_MAX_QPS_NETREACH, value: {{ .Values.feature.netReachRequestMaxQPS | int | quote }}}
- {name: KPATROL_MAX_QPS_APPHTTPHEALTHY, value: {{ .Values.feature.appHttpHealthyRequestMaxQPS | int | quote }}}
- {name: KPATROL_MAX_QPS_NETDNS, value: {{ .Values.feature.netDnsRequestMaxQPS | int | quote }}}
- {name: KPATROL_HEALTH_LISTEN, value: ":8080"}
{{- if include "kpatrol.reportApi" . }}
- {name: KPATROL_API_LISTEN, value: ":8443"}
- {name: KPATROL_API_TLS_CERT_FILE, value: /etc/kpatrol/api-tls/tls.crt}
- {name: KPATROL_API_TLS_KEY_FILE, value: /etc/kpatrol/api-tls/tls.key}
{{- end }}
{{- end }}

{{/* The report API is a part of the controller that works with the API server. */}}
{{- define "kpatrol.reportApi" -}}
{{- if and .Values.reportApi.enabled (eq .Values.controller.source "kubernetes") }}yes{{ end -}}
{{- end }}
