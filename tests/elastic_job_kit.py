"""The routes of Elastic-Job-Cloud: those of 2.1.5, and those that 3.0.x has in addition."""

_OF_2 = """
POST /api/app
PUT /api/app
GET /api/app/list
GET /api/app/{name}
DELETE /api/app/{name}
GET /api/app/{name}/disable
POST /api/app/{name}/disable
DELETE /api/app/{name}/disable
POST /api/job/register
PUT /api/job/update
DELETE /api/job/deregister
GET /api/job/{name}/disable
POST /api/job/{name}/disable
DELETE /api/job/{name}/disable
POST /api/job/trigger
GET /api/job/jobs
GET /api/job/jobs/{name}
GET /api/job/tasks/running
GET /api/job/tasks/ready
GET /api/job/tasks/failover
GET /api/job/events/executions
GET /api/job/events/statusTraces
GET /api/job/statistics/tasks/results
GET /api/job/statistics/tasks/results/{period}
GET /api/job/statistics/tasks/running
GET /api/job/statistics/jobs/type
GET /api/job/statistics/jobs/executionType
GET /api/job/statistics/jobs/running
GET /api/job/statistics/jobs/register
POST /api/operate/reconcile/explicit
POST /api/operate/reconcile/implicit
GET /api/operate/sandbox
"""
_OF_3 = """
POST /api/login
POST /api/app/{name}/enable
POST /api/job/{name}/enable
DELETE /api/job/{name}/deregister
"""
#: METHOD PATH of every route
ROUTES = [line for line in (_OF_2 + _OF_3).splitlines() if line]
