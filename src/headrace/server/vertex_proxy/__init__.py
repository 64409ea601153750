"""The proxy for the names of Vertex AI: code that knows only Google's addresses gets to this server by its environment.

A client that has it for its HTTPS proxy asks it to ``CONNECT us-central1-aiplatform.googleapis.com:443``, and is shown
a certificate for that name, of this server's own private authority. Only who was told to trust that authority goes on.
It connects to nothing but this server: every other name is refused.

* `connect`: which requests are served (pure)
* `tunnel`: a client's connection, from its request to the end of what it leads to
"""
