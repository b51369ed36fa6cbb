"""WeChat: payments in all their forms, and the open platform that logs people in."""
