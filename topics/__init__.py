"""The contracts: what the services say to each other, one file per topic.

Belongs here: records, keys, partitions, retention, wire encoding, the pure rules that both ends of a
topic must agree on (identity, share of a round). Does not belong here: anything that decides or measures.
Imports nothing of ours; everything else imports this.
"""
