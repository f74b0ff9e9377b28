"""The pages of the scheduler: plain HTML forms to sign in and out. They need no script, except to read a link's code.

The pages allow no script and no style but those of this server, and no page may frame them (Content-Security-Policy).
"""
