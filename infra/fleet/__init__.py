"""The commands for machines: ``provision``, ``instances``, ``workers``, ``costs``, ``drain`` and
``terminate``.

They talk to a running service over HTTP (``service``), ask before what costs money
(``infra.consent``) and show what there is (``bars``, ``columns``, ``figures``). What is asked for,
a scheduler does: a command that ends or is cut off changes nothing of that.
"""
