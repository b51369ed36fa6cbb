/** @jsxImportSource preact */
/**
 * The test clock: moves the whole deployment through days, an administrator's request for each, and says what happened.
 *
 * Shown only where the clock can be moved and the server gave this browser an administrator's token.
 */
import { useRef, useState } from "preact/hooks";
import { send } from "./api";
import { lookAtClock, noteTime, timeNow, useTime } from "./clock";
import { day } from "./cycle";
import { visitor } from "./session";

const ADVANCE = `mutation Advance($to: DateTime!) {
  advanceClock(to: $to, settleSeconds: 15) { now days { date flowRuns events { kind count } } }
}`;
const DAY_MS = 86_400_000;
const JUMPS = [
  ["1 天", 1],
  ["7 天", 7],
  ["一个月", 31],
] as const;

interface Day {
  date: string;
  flowRuns: number;
  events: { kind: string; count: number }[];
}

/** Kinds of events in words; what is about money that is already told by its deduction is left out. */
const WORDS: Record<string, string> = {
  "cycle.created": "发起签约",
  "cycle.started": "签约生效",
  "cycle.suspended": "暂停",
  "cycle.resumed": "恢复",
  "cycle.cancelled": "取消",
  "cycle.expired": "失效",
  "cycle.upcoming": "扣款预告",
  "deduction.due": "到扣款日",
  "deduction.paid": "扣款成功",
  "deduction.failed": "放弃扣款",
  "deduction.skipped": "跳过",
  "payment.failed": "支付失败",
  "payment.closed": "支付关闭",
  "payment.repeated": "重复通知",
};
const TOLD = new Set(["payment.created", "payment.successful"]);

const shanghai = new Intl.DateTimeFormat("zh-CN", { timeZone: "Asia/Shanghai", dateStyle: "long", timeStyle: "medium" });

export function TestClock() {
  const time = useTime();
  const [days, setDays] = useState<Record<string, Day>>({});
  const [progress, setProgress] = useState<{ done: number; of: number }>();
  const [trouble, setTrouble] = useState<string>();
  const stop = useRef(false);
  if (!time?.movable || !visitor().adminToken) return null;

  async function advance(count: number) {
    stop.current = false;
    setTrouble(undefined);
    try {
      await lookAtClock();
      let now = timeNow()!.now;
      for (let done = 0; done < count && !stop.current; done++) {
        setProgress({ done, of: count });
        const to = new Date(now + DAY_MS).toISOString();
        const { advanceClock } = await send<{ advanceClock: { now: string; days: Day[] } }>(ADVANCE, { to }, "admin");
        now = Date.parse(advanceClock.now);
        noteTime(advanceClock.now, true);
        setDays((before) => advanceClock.days.reduce(withDay, before));
      }
    } catch (error) {
      setTrouble(error instanceof Error ? error.message : String(error));
    }
    setProgress(undefined);
  }

  return (
    <section class="panel testclock" aria-labelledby="clock-title" aria-busy={!!progress}>
      <h2 id="clock-title">测试时钟</h2>
      <p class="note">
        把整个部署和沙箱一起拨到以后，逐日停下，等当天该做的都做完。现在是
        <time id="now" dateTime={new Date(time.now).toISOString()} aria-live="off">
          {shanghai.format(time.now)}
        </time>
      </p>
      <div class="jumps">
        {JUMPS.map(([name, count]) => {
          // The button that was pressed stays where it is, for whoever holds the keyboard's focus there.
          const runs = progress?.of === count;
          return (
            <button
              key={name}
              class="second"
              type="button"
              data-days={count}
              disabled={!!progress && !runs}
              onClick={() => (runs ? (stop.current = true) : void advance(count))}
            >
              {runs ? `停下 ${progress.done}/${count}` : `+${name}`}
            </button>
          );
        })}
      </div>
      <p class="trouble" role="alert">
        {trouble}
      </p>
      <ol class="days" tabIndex={0} aria-label="每天发生的事，新的在上">
        {Object.values(days)
          .reverse()
          .map((each) => (
            <li key={each.date}>
              <time dateTime={each.date}>{day(each.date)}</time>
              <span>{told(each)}</span>
            </li>
          ))}
        {!Object.keys(days).length && <li class="note">拨动以后，每天发生了什么记在这里（所有用户的）。</li>}
      </ol>
    </section>
  );
}

/** Two requests may each go through a part of one day. */
function withDay(before: Record<string, Day>, next: Day): Record<string, Day> {
  const known = before[next.date];
  if (!known) return { ...before, [next.date]: next };
  const counts = new Map(known.events.map(({ kind, count }) => [kind, count]));
  for (const { kind, count } of next.events) counts.set(kind, (counts.get(kind) ?? 0) + count);
  const events = [...counts].map(([kind, count]) => ({ kind, count }));
  return { ...before, [next.date]: { ...next, events, flowRuns: known.flowRuns + next.flowRuns } };
}

function told({ events, flowRuns }: Day): string {
  const happened = events.filter(({ kind }) => !TOLD.has(kind)).map(({ kind, count }) => `${WORDS[kind] ?? kind} ${count}`);
  if (flowRuns) happened.push(`流程 ${flowRuns}`);
  return happened.join("，") || "—";
}
