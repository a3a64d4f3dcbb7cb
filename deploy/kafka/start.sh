#!/bin/sh
# Apache Kafka in one process (broker and controller): formats an empty data folder, then becomes the broker.
# KAFKA_CONFIG: server.properties; KAFKA_DATA: its log.dirs; KAFKA_LOG4J: log4j2.properties; KAFKA_JVM: java's options.
set -eu
libs="${KAFKA_LIBS:-/opt/kafka/libs}"
java="${KAFKA_JAVA:-java}"
if [ ! -f "$KAFKA_DATA/meta.properties" ]; then
  cluster="$("$java" -cp "$libs/*" kafka.tools.StorageTool random-uuid)"
  "$java" -cp "$libs/*" kafka.tools.StorageTool format --cluster-id "$cluster" --config "$KAFKA_CONFIG"
fi
# shellcheck disable=SC2086  # options are words
exec "$java" ${KAFKA_JVM:-} "-Dlog4j2.configurationFile=$KAFKA_LOG4J" -cp "$libs/*" kafka.Kafka "$KAFKA_CONFIG"
