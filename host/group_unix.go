//go:build !windows

package host

import (
	"os"
	"os/exec"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// detached is a session of its own: what becomes of the host's terminal is nothing to the plugin. Its directory
// is one that nobody wants to unmount.
func detached() (*syscall.SysProcAttr, string) { return &syscall.SysProcAttr{Setsid: true}, "/" }

// bequeath lets the plugin inherit an open file, and returns the number that it has there.
func bequeath(cmd *exec.Cmd, f *os.File) uintptr {
	const standard = 3 // input, output, error
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	return uintptr(standard + len(cmd.ExtraFiles) - 1)
}

// wasKilled reports whether a process was ended by somebody else, and not by itself.
func wasKilled(state *os.ProcessState) bool {
	if state == nil {
		return false
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}
