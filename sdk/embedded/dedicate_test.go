package embedded

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

// The heap may grow by the slack before it is collected, whatever else is in use.
func TestGarbageIsAllowed(t *testing.T) {
	goal := func() uint64 {
		runtime.GC()
		sample := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	before := goal()
	keep := allowGarbage()
	if after := goal(); after < before+slack {
		t.Errorf("the heap may grow to %d bytes, before it might to %d", after, before)
	}
	keep()
}
