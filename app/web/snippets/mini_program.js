const API = "https://pay.example.com"; // a request domain and, as wss://, a socket domain of the mini-program
const FIELDS = `id status final checking version failure { explanationZh }
  action { ... on WechatPayParams { timeStamp nonceStr package signType paySign } }`;
const LOGIN = "mutation ($code: String!, $appId: String!) { wechatLogin(code: $code, appId: $appId) { token } }";
const CREATE = `mutation ($input: CreatePaymentInput!) { createPayment(input: $input) { ${FIELDS} } }`;
const WATCH = `subscription ($id: ID!) { payment(id: $id, untilFinal: true) { ${FIELDS} } }`;
const EXPLAIN = "query ($message: String!) { explainWechatError(message: $message) { explanationZh } }";

const call = (name, options) => new Promise((success, fail) => wx[name]({ ...options, success, fail }));
async function send(token, query, variables) {
  const header = token ? { authorization: `Bearer ${token}` } : {};
  const { data } = await call("request", { url: `${API}/graphql`, method: "POST", header, data: { query, variables } });
  if (!data.data) throw new Error(data.errors ? data.errors[0].extensions.messageZh : "网络异常，请重试");
  return data.data;
}

Page({
  onLoad({ orderId }) { this.orderId = orderId; this.attempt = 1; this.pay(); },
  // Sockets die in the background, and on an iPhone requestPayment may never answer: here the result is seen.
  onShow() { if (this.payment) this.watch(); },
  onUnload() { this.left = true; this.close(); },

  // Also a button's. The same attempt gives the same payment however often it is asked for; a closed one needs the next.
  async pay() {
    if (this.payment && this.payment.final) this.attempt++;
    try {
      const [{ code }, { appId }] = [await call("login"), wx.getAccountInfoSync().miniProgram];
      // With your own user's token it stays that user, without one it becomes the openid; both ways it names the payer.
      this.token = (await send(getApp().globalData.token, LOGIN, { code, appId })).wechatLogin.token;
      const idempotencyKey = `order-${this.orderId}-${this.attempt}`;
      const input = { orderId: this.orderId, method: "WECHAT_MINI_PROGRAM", subject: "Oolong", idempotencyKey };
      const { createPayment } = await send(this.token, CREATE, { input });
      if (this.left) return;
      this.show(createPayment);
      this.watch();
    } catch (error) { this.setData({ note: error.message || error.errMsg }); }
  },
  show(payment) {
    if (this.payment && this.payment.id === payment.id && this.payment.version >= payment.version) return;
    this.payment = payment;
    this.setData({ payment, note: "" });
    if (payment.final) this.close();
    else if (payment.action && this.opened !== payment.id) this.openCashier();
  },
  async openCashier() { // also a button's, after a cancellation
    this.opened = this.payment.id;
    const { errMsg } = await call("requestPayment", this.payment.action).catch((error) => error);
    if (/:ok$/.test(errMsg)) return; // a hint; the result comes by the subscription
    const known = await send(this.token, EXPLAIN, { message: errMsg }).catch(() => ({}));
    this.setData({ note: known.explainWechatError ? known.explainWechatError.explanationZh : errMsg });
  },
  watch() {
    this.close();
    if (this.payment.final) return;
    const url = `${API.replace(/^http/, "ws")}/graphql`;
    const socket = (this.socket = wx.connectSocket({ url, protocols: ["graphql-transport-ws"] }));
    const tell = (message) => socket.send({ data: JSON.stringify(message) });
    socket.onOpen(() => tell({ type: "connection_init", payload: { authorization: `Bearer ${this.token}` } }));
    socket.onMessage(({ data }) => {
      const { type, payload } = JSON.parse(data);
      const variables = { id: this.payment.id };
      if (type === "connection_ack") tell({ id: "1", type: "subscribe", payload: { query: WATCH, variables } });
      else if (type === "ping") tell({ type: "pong" });
      else if (type === "next" && payload.data) this.show(payload.data.payment); // the first one is the present state
    });
    const again = () => {
      if (this.socket !== socket) return; // closed by this page, or said twice
      this.socket = null;
      this.timer = setTimeout(() => this.watch(), 1000 + Math.random() * 2000);
    };
    socket.onClose(again);
    socket.onError(again);
  },
  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    if (socket) socket.close({ code: 1000 });
  },
});
