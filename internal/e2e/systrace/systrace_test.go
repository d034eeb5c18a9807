package systrace_test

import (
	"testing"

	"github.com/berthoci/berth/internal/e2e/systrace"
)

// Calls that others came between count once, and those that failed or moved nothing add no bytes.
func TestParse(t *testing.T) {
	counts, err := systrace.Parse(`7 sendfile(9, 11, NULL, 1048576) = 65536
7 sendfile(9, 11, NULL, 983040) = -1 EAGAIN (Resource temporarily unavailable)
7 sendfile(9, 11, NULL, 983040 <unfinished ...>
8 write(5, ""..., 8) = 8
7 <... sendfile resumed>) = 983040
8 exit_group(0) = ?
8 +++ exited with 0 +++
`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := counts[systrace.Sendfile], (systrace.Count{Calls: 2, Bytes: 1 << 20}); got != want {
		t.Errorf("sendfile: %v, want %v", got, want)
	}
	if got, want := counts["write"], (systrace.Count{Calls: 1, Bytes: 8}); got != want {
		t.Errorf("write: %v, want %v", got, want)
	}
}
