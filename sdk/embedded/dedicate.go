package embedded

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// slack is how much garbage may lie about although little is in use, in bytes. A registry keeps a few
	// megabytes and makes garbage with each request; at the runtime's own measure, which is as much garbage as
	// there is in use, it would look for it dozens of times a second.
	slack = 8 << 20
	// memoryGoal is the memory, in bytes, near which a server collects garbage more often. It is far above what a
	// server needs, and below what a crowd of clients could make of garbage.
	memoryGoal = 96 << 20
	// startLasts is how long the start of a server and its first answers take, at most.
	startLasts = 100 * time.Millisecond
)

// Dedicate tells Go's runtime that this process does nothing but serve a registry, until end is called: what it may
// use of memory is bounded, unless $GOMEMLIMIT says how, and garbage is collected less often.
func Dedicate() (end func()) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryGoal)
	}
	begun := make(chan func(), 1)
	// Beginning has the collector run, for which nobody is to wait who waits for the registry.
	timer := time.AfterFunc(startLasts, func() { begun <- allowGarbage() })
	return func() {
		if !timer.Stop() {
			(<-begun)()
		}
	}
}

// allowGarbage lets the process have the slack until keep is called. What the collector takes for memory in
// use is never touched, so the system need not give any for it; and where much is in use, it is no more than
// the slack that is added, which a percentage would not be.
func allowGarbage() (keep func()) {
	unused := make([]byte, slack)
	return func() { runtime.KeepAlive(unused) }
}
