// The configuration of a job: what its form needs beyond the schema of the API.
import {texts} from "../../core/i18n.js";
import {word} from "../../core/words.js";
import {MEANINGS, NAMES} from "./names.js";

const t = texts({
  en: {
    what: "Job", code: "What runs", times: "When", shards: "Shards and their needs", overlap: "Overlap and gaps",
    places: "Agents",
    failures: "Failures and losses", updates: "Updates of resident jobs", limits: "Limits",
    plugins: "Listeners and handlers",
    people: "People and alerts", other: "Further fields",
  },
  zh: {
    what: "作业", code: "执行内容", times: "调度时间", shards: "分片与资源", overlap: "重叠与错过",
    places: "节点",
    failures: "失败与丢失", updates: "常驻作业的更新", limits: "限制", plugins: "监听器与处理器",
    people: "人员与告警", other: "其他字段",
  },
});

const GROUPS = {
  what: ["jobName", "team", "appName", "jobExecutionType", "jobType", "description", "labels"],
  code: [
    "jobClass", "scriptCommandLine", "httpUri", "httpMethod", "httpData", "httpContentType", "streamingProcess",
    "jobParameter", "parameterSchema", "placeholders", "beanName", "applicationContext", "httpConnectTimeoutMilliseconds", "httpReadTimeoutMilliseconds",
    "secrets", "environment", "files",
  ],
  times: [
    "cron", "timeZone", "cronDialect", "triggers", "startTime", "endTime", "blackouts", "skipOn", "onlyOn",
    "onExcludedDay", "jitterSeconds", "startDeadlineSeconds", "dstGap", "dstFold",
    "webhookSecrets", "webhookScheme", "webhookParameters",
  ],
  shards: [
    "shardingTotalCount", "cpuCount", "memoryMB", "shardingItemParameters", "shardingItemRange", "diskMB", "gpuCount", "portCount",
    "priority",
    "isolation",
  ],
  places: ["constraints", "preferences", "pools", "avoidAgentAfterFailures", "gangStart"],
  overlap: ["concurrency", "concurrencyLimit", "misfire", "misfireLimit", "catchUp", "catchUpLimit"],
  failures: [
    "retryCount", "retryDelaySeconds", "retryMaxDelaySeconds", "retryJitter", "failover", "failoverAttempts",
    "failoverDelaySeconds", "failoverMaxDelaySeconds", "partitionPolicy", "replaceAfterSeconds",
  ],
  updates: ["updateStrategy", "maxUnavailable", "independentShards"],
  limits: ["timeoutSeconds", "killGraceSeconds", "memoryLimitMB", "cpuLimitSeconds", "openFilesLimit"],
  plugins: [
    "listener", "distributedListener.class", "distributedListener.startedTimeoutMilliseconds",
    "distributedListener.completedTimeoutMilliseconds", "jobProperties.job_exception_handler",
    "jobProperties.job_exception_webhook", "jobProperties.executor_service_handler",
  ],
  people: ["lateAfterSeconds", "noSuccessSeconds", "expectedBy"],
};
// The fields that most jobs set. The form shows them first.
const FREQUENT = new Set([
  ...GROUPS.what, "jobClass", "scriptCommandLine", "httpUri", "httpMethod", "httpData", "jobParameter", "cron",
  "timeZone",
  "shardingTotalCount", "cpuCount", "memoryMB", "shardingItemParameters", "retryCount", "timeoutSeconds",
]);
// Texts that may be long.
const LONG = new Set(["scriptCommandLine", "httpData", "description", "jobParameter", "shardingItemParameters",
  "parameterSchema", "files",
]);
// A field → the types or kinds of jobs that use it.
const IN_WORKER = ["SIMPLE", "DATAFLOW"];
const BY_TYPE = {
  jobClass: IN_WORKER, beanName: IN_WORKER, applicationContext: IN_WORKER, streamingProcess: ["DATAFLOW"],
  scriptCommandLine: ["SCRIPT"], httpUri: ["HTTP"], httpMethod: ["HTTP"], httpData: ["HTTP"], httpContentType: ["HTTP"],
  httpConnectTimeoutMilliseconds: ["HTTP"], httpReadTimeoutMilliseconds: ["HTTP"],
  environment: [...IN_WORKER, "SCRIPT"], files: [...IN_WORKER, "SCRIPT"],
};
const BY_KIND = {
  updateStrategy: "DAEMON", maxUnavailable: "DAEMON", independentShards: "DAEMON", concurrency: "TRANSIENT",
  concurrencyLimit: "TRANSIENT", misfire: "TRANSIENT", misfireLimit: "TRANSIENT", catchUp: "TRANSIENT",
  catchUpLimit: "TRANSIENT", lateAfterSeconds: "TRANSIENT", noSuccessSeconds: "TRANSIENT", expectedBy: "TRANSIENT",
  triggers: "TRANSIENT", startTime: "TRANSIENT", endTime: "TRANSIENT", blackouts: "TRANSIENT",
  skipOn: "TRANSIENT", onlyOn: "TRANSIENT", onExcludedDay: "TRANSIENT",
  jitterSeconds: "TRANSIENT", startDeadlineSeconds: "TRANSIENT",
  webhookSecrets: "TRANSIENT", webhookScheme: "TRANSIENT", webhookParameters: "TRANSIENT",
  shardingItemRange: "TRANSIENT",
};

/** Whether a job of this type has the field. The server refuses the fields of other types. */
const ofType = (field, type) => !BY_TYPE[field.path] || BY_TYPE[field.path].includes(type);

export const JOB = {
  schema: "JobConfig", groups: GROUPS, groupName: t, names: NAMES, meanings: MEANINGS, frequent: FREQUENT, long: LONG,
  /** The field that names the job, also in answers, and the fields that cannot change. */
  named: "jobName", fixed: ["jobName", "team"],
  choiceText: (field, code) => field.path === "jobExecutionType" ? `${word(code)} (${code})` : code,
  /** The place of the configuration in the body of `POST /apply`, where it is checked. */
  inBody: config => ({apps: [], jobs: [config]}), place: "jobs.0.",
  /** Whether a field has a meaning for a job of this type and kind. */
  hasMeaning: (field, {jobType, jobExecutionType}) => ofType(field, jobType)
    && (BY_KIND[field.path] ?? jobExecutionType) === jobExecutionType,
  complete(config, fields) {
    for (const field of fields) if (!ofType(field, config.jobType)) delete config[field.path];
    if (config.distributedListener && !config.distributedListener.class) config.distributedListener = null;
  },
};
