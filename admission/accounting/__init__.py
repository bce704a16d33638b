"""What was used, by whom, and how much of it is allowed: tokens and requests.

``record`` one request as it is kept · ``meter`` reads the tokens off a call and its answer
(``readers``) · ``usage_option`` asks the model server for them · ``journal`` sends records to Redis
in batches · ``limits`` what may be set · ``windows`` the minute, day and month · ``allowances`` who
may still call · ``bill`` one answer from its call to its record · ``tables`` and ``ledger`` the SQL
behind it · ``reports`` what is read from there.

A record has an id of its own, which is its key in SQL. The id it gets in the stream would not do:
a batch whose reply was lost is sent again, and then stands there twice.
"""
