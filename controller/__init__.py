"""The controller: from tasks to rounds, from verdicts to status.

Here belong the task models, the decision what to publish next (:mod:`controller.plan`, pure) and the
parts that carry it out. Here do not belong: probing, judging, SQL. It meets the agents and the processors in
``topics/`` only.
"""
