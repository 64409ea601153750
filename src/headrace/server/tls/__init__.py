"""The TLS port: whose certificate it shows, and how that stays good.

* `names`: what clients may call this machine
* `authority`: the private certificate authority, which is made once, and the certificates that it signs
* `certify`: a short-lived process of the supervisor's that makes and renews both files
* `renewal`: how that goes on while a server runs
* `files`: a certificate and its key in files that may change, and the TLS context that follows them
* `port`: a gateway's second listening socket
"""
