"""The one-machine runtime: every real part of the product, started and stopped on one machine.

Belongs here: getting, starting, stopping and breaking the real parts (Kafka, the network of namespaces, the services),
and cleaning up after them. Does not belong here: anything the product needs in a cluster; a service never imports this.
"""
