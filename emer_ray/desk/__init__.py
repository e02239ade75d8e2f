"""The page on which annotators judge a round: a small server on this machine, and plain files.

log.py       judgements as they are made: appended, synced, never overwritten
server.py    who may ask for what; media by ranges
page.*       HTML, CSS and JavaScript, as they are sent: nothing is built and nothing is fetched
"""
