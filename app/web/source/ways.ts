/** Which ways to pay suit this browser. */
import { METHODS } from "./payment";
import { type Way, visitor } from "./session";

export type Place = "wechat" | "phone" | "desktop";

const small = matchMedia("(pointer: coarse) and (max-width: 48rem)").matches;

export const place: Place = /MicroMessenger/i.test(navigator.userAgent)
  ? "wechat"
  : small || /Android|iPhone|HarmonyOS/i.test(navigator.userAgent)
    ? "phone"
    : "desktop";

/** What works in each place, what most people there want first. WeChat lets its pages open no other cashier. */
const SUITABLE: Record<Place, string[]> = {
  wechat: ["WECHAT_JSAPI"],
  phone: ["WECHAT_H5", "ALIPAY_WAP", "ALIPAY_QR", "HUIFU_ALIPAY_QR", "HUIFU_UNIONPAY_QR"],
  desktop: ["WECHAT_NATIVE", "ALIPAY_QR", "ALIPAY_PAGE", "HUIFU_ALIPAY_QR", "HUIFU_UNIONPAY_QR"],
};

/** The ways on offer that suit, the usual one first; and those that only a sandbox lets one try from here. */
export function offered(): { suitable: string[]; others: string[] } {
  const suitable = SUITABLE[place].filter(wayOf);
  const rest = Object.keys(METHODS).filter((method) => wayOf(method) && !suitable.includes(method));
  return { suitable, others: visitor().sandboxUrl ? rest : [] };
}

export const wayOf = (method: string): Way | undefined => visitor().ways.find((way) => way.method === method);
