//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/berthoci/berth/plugin"
)

// maxSyncMemory is how much memory a sync may have at any time, in KiB, however large the image is.
const maxSyncMemory = 60 << 10

// gaugeCommand makes of this program one that runs another, and tells how much memory that had at most. The kernel begins to
// count at what the parent of a process has, and that is little then, whatever the tests have.
const gaugeCommand = "e2e-gauge"

var peakLine = regexp.MustCompile(`(?m)^peak (\d+) KiB$`)

// actAsGauge runs a program to its end, which has to be a good one.
func actAsGauge(args []string) {
	if len(args) < 2 || args[0] != gaugeCommand {
		return
	}
	runtime.LockOSThread() // with which the program would end
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("peak %d KiB\n", cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	os.Exit(0)
}

// A sync of a large layer takes no more memory than one of a small one: neither the command does, nor the plugin that it starts,
// which stays a while and so can be looked at.
func TestASyncOfALargeLayerIsSmall(t *testing.T) {
	s := newShell(t)
	y := s.large(s.registry(""))
	defer s.must("berth", "--layout", y.layout, "stop")
	said := s.must(gaugeCommand, gaugeCommand, program(t, "berth"), "--layout", y.layout, "--idle-timeout", patience.String(), "sync", "--to", y.host, "app/big:v1")
	command, err := strconv.Atoi(peakLine.FindStringSubmatch(said)[1])
	s.check(err)
	var serving plugin.Status
	s.check(json.Unmarshal([]byte(s.must("berth", "--layout", y.layout, "--json", "status")), &serving))
	for what, peak := range map[string]int{"command": command, "plugin": statusOf(serving.PID, "VmHWM")} {
		if peak <= 0 || peak >= maxSyncMemory {
			t.Errorf("the %s had %d KiB of memory, want less than %d", what, peak, maxSyncMemory)
		}
		t.Logf("the %s had %d KiB of memory", what, peak)
	}
	y.arrived(s)
}
