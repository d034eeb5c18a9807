//go:build unix

package embedded_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berthoci/berth/host"
)

func TestNoPluginOutlivesItsHost(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	for kind, private := range map[string]string{"private": "yes", "shared": ""} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv(privateVariable, private)
			dir := t.TempDir()
			for round := range 10 {
				hostProcess, pid := startHost(t, dir)
				if err := hostProcess.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				hostProcess.Wait()
				if !gone(pid, 5*time.Second) {
					syscall.Kill(pid, syscall.SIGKILL)
					t.Fatalf("round %d: plugin %d is alive after its host", round, pid)
				}
			}
			openSession(t, launch{host.Self(), false}, dir)
		})
	}
}

func startHost(t *testing.T, dir string) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), hostVariable+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, convErr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || convErr != nil {
		t.Fatalf("the host said %q, %v", line, err)
	}
	return cmd, pid
}

// gone waits until a process has ended. One that nobody has waited for yet is a zombie, and has.
func gone(pid int, within time.Duration) bool {
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if syscall.Kill(pid, 0) != nil {
			return true
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && strings.Contains(string(stat), ") Z ") {
			return true
		}
	}
	return false
}
