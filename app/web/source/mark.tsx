/** @jsxImportSource preact */
/** The sign above a state's name. */

export type Look = "waiting" | "checking" | "good" | "bad" | "gone";

export function Mark({ look }: { look: Look }) {
  return (
    <svg class="mark" viewBox="0 0 64 64" width="64" height="64" aria-hidden="true" key={look}>
      <circle cx="32" cy="32" r="28" />
      {look === "good" && <path d="m20 33 8.5 8.5L45 24" />}
      {look === "bad" && <path d="m23 23 18 18m0-18L23 41" />}
      {look === "gone" && <path d="M21 32h22" />}
      {look === "waiting" && <path d="M32 18v14l9 6" />}
      {look === "checking" && <path class="spin" d="M32 10a22 22 0 0 1 22 22" />}
    </svg>
  );
}
