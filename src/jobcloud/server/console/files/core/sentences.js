// Sentences of the API by their codes: why firings were skipped, what alerts tell, warnings of the health.
import {durationText, instantText, texts} from "./i18n.js";
import {causeWord, word} from "./words.js";

const t = texts({
  en: {
    missed: "missed, and catchUp is skip",
    missed_in_pause: "missed in a pause, and the times of the job were changed before its end",
    missed_once: "one run stands for all that were missed",
    missed_limit: "missed, and older than the last of them (catchUpLimit)",
    start_deadline: "not begun within {seconds} of the fire time (startDeadlineSeconds)",
    most_runs: "{runs} runs of the job have not ended, which is the maximum",
    misfire: "the firing before it has not ended, and misfire is false",
    misfire_limit: "{waiting} firings wait already (misfireLimit)",
    queue_quota: "quota of team {team}: {waiting} of {most} shards wait already, and {more} would be added",
    skipped: "{firings} firings from {first} on are skipped: {why}", skipped_one: "the firing of {first} is skipped: {why}",
    run_ended: "run {run}: {states}; {what}: {message}",
    late: "run {run} was due at {due}, and {shards} of its shards have not ended",
    no_success: "no run has succeeded since {since}",
    expected_soon: "no run has succeeded on this day, and none is running: recent runs took up to {seconds}, so the success expected by {due} will be late",
    expected: "no run has succeeded on this day, and a success was expected by {due}",
    node_late: "node {node} of {run} has not ended in time",
    workflow_run_late: "{run} has not ended in time",
    workflow_failed: "run {run} has failed",
    rollout_stopped: "the roll-out has stopped because shard {item} does not run well: {message}",
    agent_lost: "agent {agent} is unreachable or gone; {tasks} tasks were on it",
    records: "{records} records cannot be read or written, such as {path}: {problem}",
    clock_jumped: "the clock of this machine has jumped {seconds} ahead: the scheduler continues with its own time ({own}), and follows if the jump lasts another {left}. If the new time is right, restart the scheduler to follow at once",
    clock_ahead: "the clock of this machine is {seconds} ahead of that of {whose}",
    clock_behind: "the clock of this machine is {seconds} behind that of {whose}",
    silent_jobs: "{jobs} jobs do not fire now, the last of them not before {until}: the clock was ahead when their fire times were handled. `jobcloud explain JOB` shows when a job fires again. `jobcloud job enable JOB` lets it fire from now on",
    restored: "the state was restored at {restored} from a backup of {taken}: the log shows how many shards were repeated or ended",
    channel: "the alert channel {channel} does not take messages: {problem}",
    clear_text: "tokens travel in clear text, because the API has no TLS: set http.tls_cert_file and http.tls_key_file, or http.tls to \"by-proxy\" if a proxy ends TLS",
    certificate_unusable: "{problem}. The certificate loaded before stays in use",
    certificate_expires: "the certificate of {section}.tls_cert_file expires at {at}: replace the files of {section}.tls_cert_file and {section}.tls_key_file, no restart is needed",
    certificate_expired: "the certificate of {section}.tls_cert_file has expired at {at}: replace the files of {section}.tls_cert_file and {section}.tls_key_file, no restart is needed",
    history_away: "the database of the history is away, events wait on disk: {problem}",
    history_lacks: "the history lacks {rows} events or rows: they found no room, or were refused",
    archive_away: "the archive of logs is away, {logs} logs wait: {problem}",
    archive_lacks: "{logs} logs were not archived: too many waited",
    traces_refused: "the receiver of traces takes no spans; {spans} are lost so far (tracing.endpoint)",
    audit_fails: "{problem}", audit_refuses: "{problem}; changes are refused",
    audit_size: "the audit log takes {bytes} of at most {most} bytes (audit.keep_bytes)",
    audit_lacks: "the audit log lacks {entries} entries: they could not be written",
    audit_head: "the head of the audit log is not exported: {problem}",
    identity_provider: "the identity provider {issuer}: {problem}",
    time_zones: "the time zone database is {version}, and that of this machine is {newer}: upgrade the package tzdata (docs/operations.md, \"Time zone database\")",
    calendar_ends: "calendar {calendar}, which {jobs} jobs use, is known until {day} only: later days count as days that it does not have. Send all its sources again with `jobcloud calendar put`",
    calendar_missing: "calendar {calendar} is missing, so {jobs} jobs do not fire",
    calendars_more: "{calendars} more calendars end soon or are missing",
    state: "{n} {word}", comma: ", ", item: "shard {item}", step_before: "its call before", step_after: "its call after", no_message: "no message",
    not_yet_well: "it has failed, and has not yet run for a minute since then",
    of: "{of}: {text}", others: "{text}; {n} other problems of the clock", others_one: "{text}; one other problem of the clock",
  },
  zh: {
    missed: "错过了触发，且 catchUp 为 skip",
    missed_in_pause: "在暂停期间错过，且暂停结束前作业的触发时间已更改",
    missed_once: "所有错过的触发由一次运行代替",
    missed_limit: "错过了触发，且早于其中最近的几次（catchUpLimit）",
    start_deadline: "未能在触发时间后 {seconds} 内开始（startDeadlineSeconds）",
    most_runs: "作业有 {runs} 个运行未结束，已达上限",
    misfire: "前一次触发尚未结束，且 misfire 为 false",
    misfire_limit: "已有 {waiting} 次触发在等待（misfireLimit）",
    queue_quota: "团队 {team} 的配额：已有 {waiting} 个分片在等待，上限 {most}，还要增加 {more} 个",
    skipped: "自 {first} 起的 {firings} 次触发被跳过：{why}", skipped_one: "{first} 的触发被跳过：{why}",
    run_ended: "运行 {run}：{states}；{what}：{message}",
    late: "运行 {run} 应于 {due} 触发，仍有 {shards} 个分片未结束",
    no_success: "自 {since} 以来没有成功的运行",
    expected_soon: "当天没有成功的运行，也没有运行在进行：近期的运行最长耗时 {seconds}，因此无法在 {due} 之前成功",
    expected: "当天没有成功的运行，而应在 {due} 之前成功",
    node_late: "{run} 的节点 {node} 未按时结束",
    workflow_run_late: "{run} 未按时结束",
    workflow_failed: "运行 {run} 已失败",
    rollout_stopped: "发布已停止，因为分片 {item} 运行不正常：{message}",
    agent_lost: "节点 {agent} 失联或已离开；上面有 {tasks} 个任务",
    records: "{records} 条记录无法读写，例如 {path}：{problem}",
    clock_jumped: "本机时钟向前跳了 {seconds}：调度器继续使用自己的时间（{own}），如果跳变再持续 {left} 就会跟随。如新时间正确，重启调度器可立即跟随",
    clock_ahead: "本机时钟比 {whose} 的快 {seconds}",
    clock_behind: "本机时钟比 {whose} 的慢 {seconds}",
    silent_jobs: "有 {jobs} 个作业目前不触发，其中最晚的要到 {until} 之后：处理触发时间时系统时钟超前。`jobcloud explain JOB` 显示作业何时恢复触发。`jobcloud job enable JOB` 可让作业从现在起触发",
    restored: "状态已于 {restored} 从 {taken} 的备份恢复：日志中有被重复执行或被结束的分片数",
    channel: "告警渠道 {channel} 不接收消息：{problem}",
    clear_text: "API 没有 TLS，令牌以明文传输：请设置 http.tls_cert_file 和 http.tls_key_file；如由代理终止 TLS，请将 http.tls 设为 \"by-proxy\"",
    certificate_unusable: "{problem}。继续使用之前加载的证书",
    certificate_expires: "{section}.tls_cert_file 的证书将于 {at} 过期：请更换 {section}.tls_cert_file 和 {section}.tls_key_file 的文件，无需重启",
    certificate_expired: "{section}.tls_cert_file 的证书已于 {at} 过期：请更换 {section}.tls_cert_file 和 {section}.tls_key_file 的文件，无需重启",
    history_away: "历史数据库不可用，事件在磁盘上等待：{problem}",
    history_lacks: "历史缺少 {rows} 个事件或行：没有空间，或被拒绝",
    archive_away: "日志归档不可用，{logs} 个日志在等待：{problem}",
    archive_lacks: "{logs} 个日志未归档：等待的过多",
    traces_refused: "追踪接收端不接收 span；已丢失 {spans} 个（tracing.endpoint）",
    audit_fails: "审计日志出错：{problem}", audit_refuses: "审计日志出错：{problem}；拒绝更改",
    audit_size: "审计日志占用 {bytes} 字节，上限 {most} 字节（audit.keep_bytes）",
    audit_lacks: "审计日志缺少 {entries} 条记录：无法写入",
    audit_head: "审计日志的头部未导出：{problem}",
    identity_provider: "身份提供方 {issuer}：{problem}",
    time_zones: "时区数据库为 {version}，本机的为 {newer}：请升级 tzdata 包（docs/operations.md，\"Time zone database\"）",
    calendar_ends: "日历 {calendar}（有 {jobs} 个作业使用）只知道到 {day} 为止的日期：之后的日期视为不在日历中。请用 `jobcloud calendar put` 重新提交其全部来源",
    calendar_missing: "缺少日历 {calendar}，因此有 {jobs} 个作业不触发",
    calendars_more: "另有 {calendars} 个日历即将到期或缺失",
    state: "{n} 个{word}", comma: "，", item: "分片 {item}", step_before: "运行前的监听器调用", step_after: "运行后的监听器调用", no_message: "没有消息",
    not_yet_well: "它曾失败，此后尚未持续运行满一分钟",
    of: "{of}：{text}", others: "{text}；另有 {n} 个时钟问题", others_one: "{text}；另有 1 个时钟问题",
  },
});

const INSTANTS = ["first", "due", "since", "until", "own", "restored", "taken", "at"];
const SPANS = ["seconds", "left"];

/** The parameters of a sentence in words. */
function inWords(code, given) {
  const found = {...given, n: given.firings};
  for (const name of INSTANTS) if (given[name]) found[name] = instantText(given[name]);
  for (const name of SPANS) if (name in given) found[name] = durationText(given[name] * 1_000);
  if (code === "skipped" && t.has(given.why)) found.why = t(given.why, inWords(given.why, given));
  if (code === "rollout_stopped") found.message = given.message || t("not_yet_well");
  if (code === "run_ended") {
    found.states = given.states.split("; ").map(one => {
      const [n, state] = one.split(" × ");
      return t("state", {n, word: word(state)});
    }).join(t("comma"));
    found.what = given.step ? t(`step_${given.step}`) : t("item", {item: String(given.item)});
    found.message = given.message || (given.cause ? causeWord(given.cause) : t("no_message"));
  }
  return found;
}

/** Whether a code has a sentence here. */
export const knows = code => Boolean(code) && t.has(code);

/**
 * A sentence in the language of the reader. `text` is the sentence in English. It is shown if there is no code, such as
 * in a record of an older version, or a code that this console does not know.
 */
export function sentence(text, code, parameters) {
  if (!knows(code)) return text;
  const found = t(code, inWords(code, parameters));
  const whole = parameters.others > 0 ? t("others", {text: found, n: parameters.others}) : found;
  return parameters.of ? t("of", {of: parameters.of, text: whole}) : whole;
}
