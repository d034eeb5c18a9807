//go:build linux

package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"time"
)

// watcher looks at the memory of the servers while they run.
type watcher struct {
	mu   sync.Mutex     // guards the field below
	most map[string]use // by the server's name
}

// use is memory in KiB.
type use struct {
	anonymous int64 // the most that was seen
	resident  int64 // the most that there was, with the pages of files
}

// watchEvery is the rest between two looks.
const watchEvery = 10 * time.Millisecond

// watch looks at a process until stop is called.
func (w *watcher) watch(name string, pid int) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			w.note(name, pid)
			select {
			case <-tick.C:
			case <-done:
				w.note(name, pid)
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(done)
		<-ended
	})
}

func (w *watcher) note(name string, pid int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return // it has ended
	}
	now := use{field(status, "RssAnon:"), field(status, "VmHWM:")}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.most == nil {
		w.most = map[string]use{}
	}
	last := w.most[name]
	w.most[name] = use{max(last.anonymous, now.anonymous), max(last.resident, now.resident)}
}

// uses is what was seen of each.
func (w *watcher) uses() map[string]use {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.most)
}

// field reads a number that stands behind a name in a file of /proc.
func field(status []byte, name string) int64 {
	_, rest, _ := bytes.Cut(status, []byte(name))
	for word := range bytes.FieldsSeq(rest) {
		n, _ := strconv.ParseInt(string(word), 10, 64)
		return n
	}
	return 0
}

// ticks is how many of the kernel's clock there are in a second, for programs.
const ticks = 100

// cpu is how many seconds of processor a process has taken, its own and the kernel's for it.
func cpu(pid int) (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in brackets that may hold anything; utime and stime are the 14th and 15th.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const utime = 14 - 3
	if len(fields) < utime+2 {
		return 0, fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(fields))
	}
	user, err := strconv.ParseInt(string(fields[utime]), 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(string(fields[utime+1]), 10, 64)
	return float64(user+system) / ticks, err
}
