"""WeChat Pay: its protocols on one side, our contract on the other."""
