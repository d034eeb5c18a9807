package host

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// detached has no console: what becomes of the host's is nothing to the plugin.
func detached() (*syscall.SysProcAttr, string) {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS}, ""
}

// bequeath does nothing: open files are not inherited here by number, so the host keeps the lock until the plugin
// takes calls.
func bequeath(*exec.Cmd, *os.File) uintptr { return 0 }

// wasKilled reports false: here a process that was ended by another looks as if it had ended by itself.
func wasKilled(*os.ProcessState) bool { return false }
