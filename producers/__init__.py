"""The agent: runs its share of every round, answers its peers, records every request, loses none unsaid.

Belongs here: the round's life (rounds, underload, share), load and probes, the responder, spool, journal, and the door
to Kafka (publish). Does not belong here: choosing what is probed (controller) or judging it (streams). Meets the other
services in `topics` only.
"""
