"""How an alarm's transition reaches people: what is sent where (pure), and the sending with its retries.

Nothing of Kafka or Faust in here. Each kind of hook has its own file and its line in `read.KINDS`.
"""
