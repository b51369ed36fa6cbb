/** The operations GraphiQL opens with. Tabs are named by their operations, in the order in which one would press them. */

export interface Example {
  query: string;
  variables: Record<string, unknown>;
  /** Whose token the tab brings, where the server gives it; else the visitor's. */
  as?: "admin" | "clerk";
}

/** Stands for the id of the payment that was made last on this page; replaced as soon as there is one. */
export const PAYMENT_PLACEHOLDER = "先运行 Pay，这里自动填入";

/** The same for the cycle payment that was started last. */
export const CYCLE_PLACEHOLDER = "先运行 StartCycle，这里自动填入";

/** `tomorrow` is a day after the deployment's time, ISO 8601. */
export function examples(orderId: string, tomorrow: string): Example[] {
  return [
    {
      query: `# 订单和它的支付。按钮或 Ctrl-Enter 运行。
query Order($orderId: ID!) {
  order(id: $orderId) {
    id
    data
    payments {
      id
      method
      amount
      status
      final
    }
  }
}
`,
      variables: { orderId },
    },
    {
      query: `# 发起支付。再运行一次还是同一笔：
# idempotencyKey 没有变。
mutation Pay($input: CreatePaymentInput!) {
  createPayment(input: $input) {
    id
    outTradeNo
    amount
    status
    checking
    expiresAt
    action {
      ... on QrCode {
        codeUrl
        deepLink
      }
      ... on Redirect {
        url
      }
    }
  }
}
`,
      variables: {
        input: { orderId, method: "ALIPAY_QR", subject: "GraphiQL 示例", idempotencyKey: `graphiql-${orderId}` },
      },
    },
    {
      query: `# 订阅：先收到现在的状态，再收到每次变化。
# 打开 codeUrl 付款，或运行 Sync、Close。
subscription WatchPayment($paymentId: ID!) {
  payment(id: $paymentId, untilFinal: true) {
    id
    status
    final
    checking
    paidAmount
    transactionId
    version
  }
}
`,
      variables: { paymentId: PAYMENT_PLACEHOLDER },
    },
    {
      query: `# 订单这一行：谁改了它，这里都会收到。
subscription WatchOrder($orderId: ID!) {
  order(id: $orderId) {
    id
    data
  }
}
`,
      variables: { orderId },
    },
    {
      query: `# 现在就去问支付渠道（反查）。
mutation Sync($paymentId: ID!) {
  syncPayment(id: $paymentId) {
    id
    status
    final
    checking
    version
  }
}
`,
      variables: { paymentId: PAYMENT_PLACEHOLDER },
    },
    {
      query: `# 关闭：渠道不再收这笔钱。
mutation Close($paymentId: ID!) {
  closePayment(id: $paymentId) {
    id
    status
    final
    version
  }
}
`,
      variables: { paymentId: PAYMENT_PLACEHOLDER },
    },
    {
      query: `# 管理员：授权角色 clerk 退款。在这以前，
# 谁都不能退，管理员也一样。可以设上限。
mutation Grant($role: String!, $largest: Yuan) {
  grantPermission(role: $role, action: "payment.refund", largestRefund: $largest)
}
`,
      variables: { role: "clerk", largest: "500.00" },
      as: "admin",
    },
    {
      query: `# 店员：退一部分。同一个 idempotencyKey
# 再运行多少次，也只退一次。
mutation Refund($input: RefundPaymentInput!) {
  refundPayment(input: $input) {
    id
    outRefundNo
    amount
    status
    checking
  }
}
`,
      variables: {
        input: {
          paymentId: PAYMENT_PLACEHOLDER,
          amount: "1.00",
          reason: "GraphiQL 示例",
          idempotencyKey: `graphiql-refund-${orderId}`,
        },
      },
      as: "clerk",
    },
    {
      query: `# 订阅一笔支付的退款：已有的和以后的。
# 在店员页（/demo/clerk）再退一笔，这里就会收到。
subscription WatchRefunds($paymentId: ID!) {
  refunds(paymentId: $paymentId) {
    id
    amount
    status
    final
    checking
    reason
    failure {
      explanationZh
    }
    version
  }
}
`,
      variables: { paymentId: PAYMENT_PLACEHOLDER },
    },
    {
      query: `# 周期扣款：打开 url 签约一次，以后每 7 天扣一次。
# 同一用户在一个场景下只能有一份生效的协议。
mutation StartCycle($input: StartCyclePaymentInput!) {
  startCyclePayment(input: $input) {
    id
    status
    price
    intervalDays
    firstDeductionOn
    expiresAt
    action {
      ... on Redirect {
        url
        deepLink
      }
    }
  }
}
`,
      variables: {
        input: {
          orderId,
          price: "9.90",
          subject: "GraphiQL 会员",
          intervalDays: 7,
          scene: "INDUSTRY|DIGITAL_MEDIA",
          idempotencyKey: `graphiql-cycle-${orderId}`,
        },
      },
    },
    {
      query: `# 订阅一份周期扣款：签约、每次扣款、暂停、结束。
subscription WatchCycle($cycleId: ID!) {
  cyclePayment(id: $cycleId) {
    status
    cancelling
    suspendedFor
    nextDeductionOn
    upcoming(limit: 3) {
      dueOn
      price
    }
    deductions(limit: 12) {
      dueOn
      status
      orderId
      nextAttemptAt
      failure {
        explanationZh
      }
    }
    version
  }
}
`,
      variables: { cycleId: CYCLE_PLACEHOLDER },
    },
    {
      query: `# 管理员：把测试时钟拨到以后，逐日停下，当天的
# 扣款做完才继续。再拨就把 to 写得更晚。
mutation AdvanceClock($to: DateTime!) {
  advanceClock(to: $to) {
    now
    days {
      date
      flowRuns
      events {
        kind
        count
      }
    }
  }
}
`,
      variables: { to: tomorrow },
      as: "admin",
    },
    {
      query: `# 取消：协议在支付宝那边也解除，不再扣款。
mutation CancelCycle($cycleId: ID!) {
  cancelCyclePayment(id: $cycleId) {
    id
    status
    cancelling
    endedAt
  }
}
`,
      variables: { cycleId: CYCLE_PLACEHOLDER },
    },
    {
      query: `# 管理员：支付功能现在的状态，授了哪些权。
query Feature {
  paymentFeature {
    active
    orderTable
    plan
    planExpiresAt
  }
  permissions {
    role
    action
    scope
    largestRefund
    grantedBy
  }
}
`,
      variables: {},
      as: "admin",
    },
    {
      query: `# 管理员：出售或续订套餐，立即生效。
# 到期后新的支付会被拒绝（PLAN_EXPIRED）。
mutation SetPlan($plan: String!, $expiresAt: DateTime!) {
  setPlan(plan: $plan, expiresAt: $expiresAt) {
    plan
    planExpiresAt
  }
}
`,
      variables: { plan: "标准版", expiresAt: "2099-01-01T00:00:00+08:00" },
      as: "admin",
    },
    {
      query: `# 管理员：绑定自己的订单表。
# 已经绑定时会被拒绝，并说明原因。
mutation Activate($input: ActivatePaymentsInput!) {
  activatePayments(input: $input) {
    active
    orderTable
  }
}
`,
      variables: {
        input: {
          orderTable: "orders",
          ownerColumn: "user_id",
          amountColumn: "amount",
          statusColumn: "status",
          paidStatus: "paid",
          refundedStatus: "refunded",
        },
      },
      as: "admin",
    },
  ];
}
