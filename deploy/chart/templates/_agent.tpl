{{/* The pod of an agent. Arguments: root, name, values, flavour (pod or host). */}}
{{- define "kpatrol.agent.pod" -}}
{{- $root := .root }}
{{- $values := .values }}
{{- $agent := $root.Values.agent }}
metadata:
  {{- include "kpatrol.podmeta" . | nindent 2 }}
spec:
  # Agents learn everything from Kafka and have nothing to say to the API server.
  serviceAccountName: {{ $root.Values.global.name }}-agent
  automountServiceAccountToken: false
  {{- if eq .flavour "host" }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  terminationGracePeriodSeconds: {{ $agent.terminationGracePeriodSeconds }}
  {{- include "kpatrol.placement" . | nindent 2 }}
  securityContext:
    {{- include "kpatrol.podsecurity" . | nindent 4 }}
    {{- if eq .flavour "pod" }}
    # Ping sockets for everybody and port 80 for a plain user: both are safe sysctls of the pod's own network.
    sysctls:
      - {name: net.ipv4.ping_group_range, value: "0 2147483647"}
      - {name: net.ipv4.ip_unprivileged_port_start, value: "0"}
    {{- end }}
  containers:
    - name: agent
      {{- include "kpatrol.image" (dict "root" $root "image" $agent.image) | nindent 6 }}
      env:
        {{- include "kpatrol.kafka.env" (dict "root" $root "role" "agent") | nindent 8 }}
        - name: KPATROL_NODE
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
        - name: KPATROL_POD
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: KPATROL_POD_IPS
          valueFrom: {fieldRef: {fieldPath: status.podIPs}}
        - name: KPATROL_HOST_IPS
          valueFrom: {fieldRef: {fieldPath: status.hostIPs}}
        # Copied from the node when the pod is bound (Kubernetes 1.35); the controller knows it otherwise.
        - name: KPATROL_ZONE
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}
        - {name: KPATROL_AGENT, value: {{ ternary "$(KPATROL_NODE)" "$(KPATROL_NODE)-host" (eq .flavour "pod") }}}
        - {name: KPATROL_GROUP, value: {{ ternary "default" "host" (eq .flavour "pod") }}}
        - {name: KPATROL_FLAVOUR, value: {{ .flavour }}}
        - {name: KPATROL_CLUSTER, value: {{ $root.Values.global.cluster | quote }}}
        - {name: KPATROL_HTTP_PORT, value: {{ $values.ports.http | quote }}}
        - {name: KPATROL_HTTPS_PORT, value: {{ $values.ports.https | quote }}}
        - {name: KPATROL_TCP_PORT, value: {{ $values.ports.tcp | quote }}}
        - {name: KPATROL_UDP_PORT, value: {{ $values.ports.udp | quote }}}
        - {name: KPATROL_HEALTH_LISTEN, value: {{ printf ":%v" $values.ports.health | quote }}}
        {{- if $values.ports.https }}
        - {name: KPATROL_TLS_CERT_FILE, value: /etc/kpatrol/tls/tls.crt}
        - {name: KPATROL_TLS_KEY_FILE, value: /etc/kpatrol/tls/tls.key}
        {{- end }}
        - {name: KPATROL_SPOOL_DIR, value: /var/lib/kpatrol}
        - {name: KPATROL_SPOOL_MAX_BYTES, value: {{ mul $agent.spool.maxMiB 1048576 | quote }}}
        - {name: KPATROL_HEARTBEAT_S, value: {{ $agent.heartbeatSeconds | quote }}}
        {{- with $agent.lookups }}
        - {name: KPATROL_LOOKUPS, value: {{ join "," . | quote }}}
        {{- end }}
        - {name: KPATROL_MAX_RATE, value: {{ $agent.limits.rate | int | quote }}}
        - {name: KPATROL_MAX_RATE_PER_TARGET, value: {{ $agent.limits.ratePerTarget | int | quote }}}
        - {name: KPATROL_MAX_IN_FLIGHT, value: {{ $agent.limits.inFlight | int | quote }}}
        - {name: KPATROL_MAX_IN_FLIGHT_PER_TARGET, value: {{ $agent.limits.inFlightPerTarget | int | quote }}}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: http, containerPort: {{ $values.ports.http }}}
        {{- if $values.ports.https }}
        - {name: https, containerPort: {{ $values.ports.https }}}
        {{- end }}
        - {name: tcp, containerPort: {{ $values.ports.tcp }}}
        - {name: udp, containerPort: {{ $values.ports.udp }}, protocol: UDP}
        - {name: health, containerPort: {{ $values.ports.health }}}
      {{- include "kpatrol.probes" (dict "startSeconds" 120) | nindent 6 }}
      {{- include "kpatrol.containersecurity" . | nindent 6 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: spool, mountPath: /var/lib/kpatrol}
        {{- if $values.ports.https }}
        - {name: tls, mountPath: /etc/kpatrol/tls, readOnly: true}
        {{- end }}
        {{- include "kpatrol.kafka.mounts" (dict "root" $root "role" "agent") | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- if eq $agent.spool.type "hostPath" }}
    - name: spool
      hostPath: {path: {{ printf "%s/%s" (required "agent.spool.hostPath: expected a folder where agent.spool.type is hostPath" $agent.spool.hostPath) .flavour }}, type: Directory}
    {{- else }}
    - name: spool
      # The bound of the spool is the agent's own; this one is for what it does not count.
      emptyDir: {sizeLimit: {{ add $agent.spool.maxMiB 64 }}Mi}
    {{- end }}
    {{- if $values.ports.https }}
    - name: tls
      secret: {secretName: {{ $root.Values.global.name }}-agent-tls, defaultMode: 0440}
    {{- end }}
    {{- include "kpatrol.kafka.volumes" (dict "root" $root "role" "agent") | nindent 4 }}
{{- end }}
