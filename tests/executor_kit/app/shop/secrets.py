import os

from jobcloud.job import FiringListener


def reads_secrets(ctx):
    found = {}
    for key, value in ctx.secrets.items():
        found[key] = value[::-1]
        if value.startswith("/"):
            with open(value) as file:
                found[key] = [value, file.read(), os.fstat(file.fileno()).st_mode & 0o777]
    return {"secrets": found, "shown": repr(ctx), "environment": sorted(set(ctx.secrets) & set(os.environ))}


class ReadsSecretsBefore(FiringListener):
    def before_firing(self, ctx):
        return print("before with", ctx.secrets["PASSWORD"][::-1])
