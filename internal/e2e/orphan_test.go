//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// orphanLimit is how long a plugin may outlive its host.
const orphanLimit = 5 * time.Second

var (
	openLine   = regexp.MustCompile(`(?m)^(open)$`)
	pushedLine = regexp.MustCompile(`(?m)^pushed (\S+):(\S+) (\S+)$`)
)

// hosts is a layout that one host after the other works on.
type hosts struct {
	*shell
	layout string
	random *rand.Rand
	all    []pushed
	slow   time.Duration // the longest that a plugin has outlived its host
}

// moments are when a host is killed. Each returns when it is time.
var moments = []struct {
	name  string
	await func(h *hosts, host *process, temp string)
}{
	{"as soon as it has a temporary directory", func(h *hosts, host *process, temp string) {
		h.spin(host, func() bool { return len(h.left(temp)) > 0 })
	}},
	{"as soon as it has a plugin", func(h *hosts, host *process, temp string) {
		h.spin(host, func() bool { return len(h.plugins(temp)) > 0 })
	}},
	{"while it starts", func(h *hosts, _ *process, _ string) { h.wait(60 * time.Millisecond) }},
	{"while it pushes", func(h *hosts, host *process, temp string) {
		host.await(&host.stdout, openLine)
		if plugins := h.plugins(temp); len(plugins) != 1 {
			h.Errorf("the host runs the plugins %v, want one", plugins)
		}
		h.wait(250 * time.Millisecond)
	}},
}

// A private plugin goes with its host, whenever and however that is killed; it leaves nothing behind,
// and nothing is lost that was pushed.
func TestNothingOutlivesAHostThatIsKilled(t *testing.T) {
	s, rounds := newShell(t), 20
	if testing.Short() {
		rounds = 4
	}
	h := &hosts{shell: s, layout: s.path("layout"), random: s.random()}
	for _, moment := range moments {
		t.Run(moment.name, func(t *testing.T) {
			own := *s
			own.T = t
			h.shell = &own
			for round := 0; round < rounds && !t.Failed(); round++ {
				h.round(round, moment.await)
			}
		})
	}
	t.Logf("%d images were pushed; what was left was gone within %v", len(h.all), h.slow)
}

// spin waits for something that a host does before it is open, without a rest: what follows must come
// at once.
func (h *hosts) spin(host *process, done func() bool) {
	for !done() && !host.hasEnded() && !openLine.MatchString(host.stdout.String()) {
		continue
	}
}

// wait waits for a random while.
func (h *hosts) wait(most time.Duration) {
	time.Sleep(time.Duration(h.random.Int64N(int64(most))))
}

// round kills one host.
func (h *hosts) round(round int, await func(*hosts, *process, string)) {
	h.Helper()
	temp, err := os.MkdirTemp(h.temp, "")
	h.check(err)
	host := h.with("TMPDIR="+temp).start(hostCommand, hostCommand, program(h.T, "berth"), h.layout, filepath.Base(temp)+"-")
	await(h, host, temp)
	if host.hasEnded() {
		h.Errorf("the host ended by itself:\n%s", &host.stderr)
	}
	host.kill()
	h.gone(temp, fmt.Sprint("round ", round))
	h.intact(host.stdout.String())
}

// gone makes sure that no plugin and no file of a host remains.
func (h *hosts) gone(temp, when string) {
	h.Helper()
	begin := time.Now()
	if !within(orphanLimit, func() bool { return len(h.plugins(temp)) == 0 }) {
		h.Errorf("%s: the plugins %v are alive %v after their host", when, h.plugins(temp), orphanLimit)
	}
	h.sweptAway(temp, when)
	h.slow = max(h.slow, time.Since(begin))
}

// sweptAway makes sure that no file of a host remains. What one left that was killed before its plugin
// ran, the next one removes once it is old.
func (h *hosts) sweptAway(temp, when string) {
	h.Helper()
	if within(time.Second, func() bool { return len(h.left(temp)) == 0 }) {
		return
	}
	old := time.Now().Add(-time.Hour)
	for _, file := range h.left(temp) {
		h.check(os.Chtimes(file, old, old))
	}
	source := temp + "-image"
	h.smallImage(source, "v1", 1)
	h.with("TMPDIR="+temp).must("berth", "push", "--layout", filepath.Join(h.temp, "sweeper"), "oci:"+source+":v1", "swept/image:v1")
	if left := h.left(temp); len(left) > 0 {
		h.Errorf("%s: %q are left in TMPDIR", when, left)
	}
}

// left are the files below a TMPDIR, as deep as plugins make them.
func (h *hosts) left(temp string) []string {
	h.Helper()
	var all []string
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		left, err := filepath.Glob(filepath.Join(temp, pattern))
		h.check(err)
		all = append(all, left...)
	}
	return all
}

// plugins are the processes of the berth binary that were started with a TMPDIR.
func (h *hosts) plugins(temp string) []int {
	h.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	h.check(err)
	var found []int
	for _, dir := range processes {
		exe, _ := os.Readlink(dir + "/exe")
		environ, _ := os.ReadFile(dir + "/environ")
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && exe == program(h.T, "berth") &&
			strings.Contains(string(environ)+"\x00", "TMPDIR="+temp+"\x00") {
			found = append(found, pid)
		}
	}
	return found
}

// intact opens the layout again, and makes sure that it has all that a host was told is there, and
// what others were told before.
func (h *hosts) intact(said string) {
	h.Helper()
	var fresh []pushed
	for _, match := range pushedLine.FindAllStringSubmatch(said, -1) {
		fresh = append(fresh, pushed{match[1], match[2], digest.Digest(match[3])})
	}
	h.all = append(h.all, fresh...)
	server, address := h.serve(h.layout)
	h.complete(address, append(fresh, h.sample(h.random, h.all)...))
	server.stop()
}
