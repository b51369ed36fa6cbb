/** @jsxImportSource preact */
/** The deployment's time. A test clock may have moved it far from this device's, and may move it while the page is open. */
import { useEffect, useState } from "preact/hooks";
import { send } from "./api";

export interface Time {
  /** ms since 1970 */
  now: number;
  /** Whether this deployment's clock can be moved at all. */
  movable: boolean;
}

const CLOCK = "query Clock { clock { now movable } }";
const LOOK_MS = 3000;

let known: { aheadMs: number; movable: boolean } | undefined;
let looking: Promise<void> | undefined;
const tellers = new Set<() => void>();

/** Takes in what the deployment's time is by an answer that took `tookMs`. */
export function noteTime(now: string, movable: boolean, tookMs = 0): void {
  known = { aheadMs: Date.parse(now) - (Date.now() - tookMs / 2), movable };
  for (const tell of tellers) tell();
}

/** The time as of now; undefined before it is known. */
export const timeNow = (): Time | undefined => known && { now: Date.now() + known.aheadMs, movable: known.movable };

/** Asks for the time; calls made at once share one request. Without an answer the last one holds. */
export function lookAtClock(): Promise<void> {
  const [began, before] = [Date.now(), known];
  looking ??= send<{ clock: { now: string; movable: boolean } }>(CLOCK, {})
    .then(
      ({ clock }) => {
        // Noted meanwhile: this answer may be from before the clock was moved.
        if (known === before) noteTime(clock.now, clock.movable, Date.now() - began);
      },
      () => {},
    )
    .finally(() => {
      looking = undefined;
    });
  return looking;
}

/** The time, every second and whenever it jumps. Where it can be moved it is asked for again and again. */
export function useTime(): Time | undefined {
  const [time, setTime] = useState(timeNow);
  useEffect(() => {
    const tick = () => setTime(timeNow());
    const look = () => void ((known && !known.movable) || document.hidden || lookAtClock());
    tellers.add(tick);
    look();
    const timers = [setInterval(tick, 1000), setInterval(look, LOOK_MS)];
    document.addEventListener("visibilitychange", look);
    return () => {
      tellers.delete(tick);
      timers.forEach(clearInterval);
      document.removeEventListener("visibilitychange", look);
    };
  }, []);
  return time;
}

export function Countdown({ until }: { until: string }) {
  const time = useTime();
  if (!time) return <>—</>;
  const left = Math.max(0, Math.floor((Date.parse(until) - time.now) / 1000));
  const two = (part: number) => String(part).padStart(2, "0");
  return (
    <time dateTime={until} role="timer" aria-live="off">
      {Math.floor(left / 3600)}:{two(Math.floor(left / 60) % 60)}:{two(left % 60)}
    </time>
  );
}
