package main

import (
	"os/exec"
	"syscall"
)

// endsWithParent has a command killed when the thread ends that starts it.
func endsWithParent(child *exec.Cmd) {
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
