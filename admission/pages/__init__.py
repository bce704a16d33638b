"""The pages people read, made on the server: the waiting page in five languages, and the docs.

``words`` the languages · ``waiting`` the waiting page of a ticket · ``templates`` the HTML ·
``assets`` the style sheet and the script, served by us. Knows tickets; nothing of HTTP.
"""

ASSETS = {"page.css": "text/css", "wait.js": "text/javascript"}
"""What ``assets`` holds, and the kind of each."""
