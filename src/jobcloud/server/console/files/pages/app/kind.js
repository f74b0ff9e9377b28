// The configuration of an app: what its form needs beyond the schema of the API.
import {texts} from "../../core/i18n.js";

const t = texts({
  en: {what: "App", executor: "Its executor on each agent", worker: "Worker and reports", other: "Further fields"},
  zh: {what: "应用", executor: "每个节点上的执行器", worker: "工作进程与报告", other: "其他字段"},
});

const NAMES = texts({
  en: {
    appName: "Name", team: "Team", appURL: "Package", packageSha256: "Hash of the package", description: "Description",
    bootstrapScript: "Command of the worker", cpuCount: "CPUs of the executor", memoryMB: "Memory of the executor",
    diskMB: "Disk of the executor", gpuCount: "GPUs of the executor", portCount: "Ports of the executor",
    appCacheEnable: "Agents keep the package", eventTraceSamplingCount: "Reported executions",
    idleTimeoutSeconds: "Exit after", maxParallel: "Shards at once", executors: "Warm executors",
    constraints: "Constraints", environment: "Environment", files: "Files",
  },
  zh: {
    appName: "名称", team: "团队", appURL: "程序包", packageSha256: "程序包的哈希值", description: "描述",
    bootstrapScript: "工作进程的命令", cpuCount: "执行器 CPU", memoryMB: "执行器内存",
    diskMB: "执行器磁盘", gpuCount: "执行器 GPU", portCount: "执行器端口数",
    appCacheEnable: "节点缓存程序包", eventTraceSamplingCount: "上报的执行",
    idleTimeoutSeconds: "空闲多久后退出", maxParallel: "同时运行的分片", executors: "预热执行器",
    constraints: "节点约束", environment: "环境变量", files: "文件",
  },
});

// The server describes fields in English. These are its descriptions in other languages.
const MEANINGS = {zh: {
  appName: "1 到 100 个字母、数字、`_`、`-` 或 `.`；首字符为字母、数字或 `_`",
  team: "应用所属的团队：1 到 32 个小写字母、数字或 `-`，首字符为字母",
  appURL: "已上传程序包的 `package:sha256:<64 位十六进制>`，或主机在设置 `packages.hosts` 中的 http(s) URL",
  packageSha256: "程序包的 SHA-256（小写十六进制）；`appURL` 为 http(s) URL 时必填",
  bootstrapScript: "启动应用自有工作进程的命令，不经过 shell 执行；留空：执行器的 Python 工作进程",
  cpuCount: "执行器自身的 CPU 数", memoryMB: "执行器自身的内存（MB）", diskMB: "执行器自身的磁盘空间（MB）",
  gpuCount: "执行器自身的 GPU 数", portCount: "执行器自身的端口数",
  appCacheEnable: "是：节点把程序包保留在获取缓存中",
  eventTraceSamplingCount: "数字 n：执行器上报 DAEMON 分片的每第 n 次执行以及每次失败；0：每次执行都上报",
  idleTimeoutSeconds: "执行器没有工作多久后退出",
  maxParallel: "一个节点上应用的工作进程最多同时运行的分片数；其余分片在执行器中等待；0：不限",
  executors: "没有分片时也保持运行的预热执行器数；每个节点最多一个；`each`：每个有空间的节点一个",
  constraints: "节点必须满足的条件，例如 `zone == a`；适用于应用的所有作业和预热执行器",
  environment: "应用的工作进程和脚本的环境变量，例如 `REGION=eu`；不要放密钥：可查看应用的人都能看到",
  files: "每个分片都能读取的文件：从路径到文本的对象，例如 `{\"conf/app.properties\": \"region=eu\"}`；不要放密钥：可查看应用的人都能看到",
  description: "供人阅读的文字",
}};

const GROUPS = {
  what: ["appName", "team", "appURL", "packageSha256", "description"],
  executor: ["cpuCount", "memoryMB", "executors", "constraints", "idleTimeoutSeconds", "diskMB", "gpuCount",
    "portCount"],
  worker: ["maxParallel", "bootstrapScript", "environment", "files", "appCacheEnable", "eventTraceSamplingCount"],
};

const STORED = "package:sha256:";
const isStored = config => String(config.appURL).startsWith(STORED);

export const APP = {
  schema: "AppConfig", groups: GROUPS, groupName: t, names: NAMES, meanings: MEANINGS,
  frequent: new Set([...GROUPS.what, "cpuCount", "memoryMB", "executors", "maxParallel"]),
  long: new Set(["bootstrapScript", "description", "files"]),
  /** The field that names the app, also in answers, and the fields that cannot change. */
  named: "appName", fixed: ["appName", "team"],
  /** The place of the configuration in the body of `POST /apply`, where it is checked. */
  inBody: config => ({apps: [config], jobs: []}), place: "apps.0.",
  hasMeaning: () => true,
  /** The URL of a stored package has its hash. */
  hides: (field, config) => field.path === "packageSha256" && isStored(config),
  complete(config) {
    if (isStored(config)) config.packageSha256 = config.appURL.slice(STORED.length);
  },
};
