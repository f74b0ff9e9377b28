// The codes of the API in words.
import {texts} from "./i18n.js";

const t = texts({
  en: {
    WAITING: "waiting", ACTIVE: "running", FINISHED: "finished", FAILED: "failed", KILLED: "killed",
    CANCELLED: "cancelled", DEAD: "dead", STORED: "launching", STAGING: "staging", STARTING: "starting",
    RUNNING: "running", KILLING: "being killed", UNREACHABLE: "unreachable", LOST: "lost", NOT_STARTED: "not started",
    INVALID: "invalid", REPLACED: "replaced", enabled: "enabled", disabled: "disabled", paused: "paused",
    cron: "schedule", catch_up: "catch-up", trigger: "by hand", daemon: "resident", backfill: "backfill",
    run_dead: "run is dead", run_failed: "run failed", late: "late", missed: "missed", skipped: "skipped",
    no_success: "no success", expected: "success expected", rollout_stopped: "roll-out stopped", agent_lost: "agent lost", clock: "clock",
    workflow_failed: "workflow failed", workflow_late: "workflow late",
    store: "store", current: "current", outdated: "outdated", gone: "gone", ok: "ok", unavailable: "not available",
    TRANSIENT: "scheduled", DAEMON: "resident", job: "job", app: "app", cluster: "everything",
    running: "running", waiting: "waiting", failed: "failed", dead: "dead",
    ad_hoc: "ad hoc", SUCCEEDED: "finished", topic_fired: "fired", topic_skipped: "skipped",
    topic_launched: "launched", topic_running: "running", topic_ended: "attempt ended", topic_done: "run ended",
    topic_refused: "refused", topic_fault: "fault", topic_cluster: "cluster", topic_config: "configuration",
    cause_exception: "exception", cause_timeout: "time limit exceeded", cause_import: "import failed",
    cause_worker_lost: "worker lost", cause_out_of_memory: "out of memory", cause_killed: "killed",
    cause_exit_code: "exit code", cause_executor_error: "error of the executor", cause_secrets: "secret missing",
    cause_context: "context", cause_listener: "listener", cause_command: "command", cause_package: "package",
    cause_executor_shutdown: "executor was shut down", READY: "ready", SKIPPED: "skipped",
  },
  zh: {
    WAITING: "等待中", ACTIVE: "运行中", FINISHED: "成功", FAILED: "失败", KILLED: "已终止",
    CANCELLED: "已取消", DEAD: "已放弃", STORED: "启动中", STAGING: "准备中", STARTING: "启动中",
    RUNNING: "运行中", KILLING: "终止中", UNREACHABLE: "失联", LOST: "丢失", NOT_STARTED: "未启动",
    INVALID: "无效", REPLACED: "已替换", enabled: "已启用", disabled: "已禁用", paused: "已暂停",
    cron: "定时", catch_up: "补跑", trigger: "手动", daemon: "常驻", backfill: "回填",
    run_dead: "运行已放弃", run_failed: "运行失败", late: "延迟", missed: "错过", skipped: "跳过",
    no_success: "长时间未成功", expected: "未按时成功", rollout_stopped: "发布已停止", agent_lost: "节点丢失", clock: "时钟",
    workflow_failed: "工作流失败", workflow_late: "工作流延迟",
    store: "存储", current: "最新", outdated: "旧版本", gone: "已离开", ok: "正常", unavailable: "不可用",
    TRANSIENT: "定时作业", DAEMON: "常驻作业", job: "作业", app: "应用", cluster: "全部",
    running: "运行中", waiting: "等待中", failed: "失败", dead: "已放弃",
    ad_hoc: "临时", SUCCEEDED: "成功", topic_fired: "触发", topic_skipped: "跳过",
    topic_launched: "启动", topic_running: "运行中", topic_ended: "尝试结束", topic_done: "运行结束",
    topic_refused: "被拒绝", topic_fault: "故障", topic_cluster: "集群", topic_config: "配置",
    cause_exception: "异常", cause_timeout: "超时", cause_import: "导入失败",
    cause_worker_lost: "工作进程丢失", cause_out_of_memory: "内存不足", cause_killed: "被终止",
    cause_exit_code: "退出码", cause_executor_error: "执行器错误", cause_secrets: "缺少密钥",
    cause_context: "上下文", cause_listener: "监听器", cause_command: "命令", cause_package: "程序包",
    cause_executor_shutdown: "执行器已关闭", READY: "就绪", SKIPPED: "已跳过",
  },
});

/** A code in words. A code that this console does not know is shown as it is. */
export const word = code => t.has(code) ? t(code) : String(code ?? "");

/** The cause of a failure in words. */
export const causeWord = code => t.has(`cause_${code}`) ? t(`cause_${code}`) : String(code ?? "");

// Each state has a symbol and a class of colours, so that colour is never the only sign.
const LOOKS = {
  WAITING: ["◷", "wait"], ACTIVE: ["▶", "run"], FINISHED: ["✓", "good"], FAILED: ["✕", "bad"], KILLED: ["■", "off"],
  CANCELLED: ["⊘", "off"], DEAD: ["✖", "dead"], STORED: ["◷", "run"], STAGING: ["◷", "run"], STARTING: ["◷", "run"],
  RUNNING: ["▶", "run"], KILLING: ["■", "off"], UNREACHABLE: ["?", "warn"], LOST: ["?", "warn"],
  NOT_STARTED: ["?", "warn"], INVALID: ["✕", "bad"], REPLACED: ["↷", "off"], enabled: ["●", "good"],
  disabled: ["○", "off"], paused: ["❚❚", "warn"], current: ["●", "good"], outdated: ["◌", "warn"], gone: ["○", "off"],
  SUCCEEDED: ["✓", "good"], READY: ["◔", "warn"], SKIPPED: ["↷", "off"], ok: ["●", "good"], unavailable: ["✕", "bad"],
};

/** The symbol and the class of a state. */
export const look = code => LOOKS[code] ?? ["•", "off"];
