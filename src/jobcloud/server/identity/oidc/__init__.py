"""OpenID Connect: an identity provider tells who sends a request.

`options` names the provider. `tokens` checks a token (no I/O). `metadata` reads the provider's documents (no I/O).
`provider` fetches and keeps them. `sign_in` is the code flow of browsers. `server.api.oidc_tokens` is the source of
identity for the guard.

joserfc checks signatures and claims. authlib is not used: its clients fetch the keys for each unknown key id without a
limit, do not fetch them after a bad signature, and read answers of any size. They build one URL and one form for us.
"""
