package main

import "runtime"

// slack is how much garbage may lie about although little is in use, in bytes. A registry keeps a few
// megabytes and makes garbage with each request; at the runtime's own measure, which is as much garbage as
// there is in use, it would look for it dozens of times a second.
const slack = 8 << 20

// allowGarbage lets the process have that slack until keep is called. What the collector takes for memory in
// use is never touched, so the system need not give any for it; and where much is in use, it is no more than
// the slack that is added, which a percentage would not be.
func allowGarbage() (keep func()) {
	unused := make([]byte, slack)
	return func() { runtime.KeepAlive(unused) }
}
