"""Jobs and listeners that print digests of their parameters."""

import hashlib

from jobcloud.job import DataflowJob, FiringListener, JobListener


def digest(*texts):
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def simple(ctx):
    print(*digest(ctx.job_parameter, ctx.sharding_parameter))


class Flow(DataflowJob):
    def fetch_data(self, ctx):
        return [1]

    def process_data(self, ctx, data):
        simple(ctx)


class Around(JobListener):
    def before_job_executed(self, ctx):
        simple(ctx)


class Whole(FiringListener):
    def before_firing(self, ctx):
        print(*digest(ctx.job_parameter, ctx.sharding_parameters[1]))


def context():
    class Beans(dict):
        def __missing__(self, name):
            return simple

    return Beans()
