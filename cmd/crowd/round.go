package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthoci/berth/internal/control"
)

const (
	// settleTime is how long a round's processes may take to be gone, after the idle timeout.
	settleTime = 5 * time.Second
	// roundTime bounds a round.
	roundTime = 2 * time.Minute
	// startedWords are what a tool's log says when it starts what serves the layout.
	startedWords = "starting a registry"
)

// round is one layout, and the processes that open it.
type round struct {
	*settings
	tally
	layout string
	random *rand.Rand
	tools  []*tool
}

// tool is one process.
type tool struct {
	cmd            *exec.Cmd
	names          []string
	stdout, stderr bytes.Buffer
	killed         atomic.Bool
	err            error
}

func (r *round) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	for i := range r.processes {
		r.tools = append(r.tools, r.newTool(ctx, i))
	}
	over := make(chan struct{})
	var killing sync.WaitGroup
	if r.kill {
		killing.Go(func() { r.killSome(over) })
	}
	err := r.runTools()
	close(over)
	killing.Wait()
	if err = errors.Join(err, r.judgeTools()); err != nil {
		return err
	}
	if err := r.awaitSilence(ctx); err != nil {
		return err
	}
	return r.judgeLayout(ctx)
}

func (r *round) newTool(ctx context.Context, i int) *tool {
	t := &tool{}
	for n := range r.images {
		t.names = append(t.names, fmt.Sprintf("crowd/p%d:v%d", i, n))
	}
	args := append([]string{"-layout", r.layout, "-idle-timeout", r.idle.String(), "-launcher", r.launcher, "-v"}, t.names...)
	t.cmd = exec.CommandContext(ctx, r.tool, args...)
	t.cmd.Dir = r.dir
	t.cmd.Env = []string{"PATH=", "TMPDIR=" + os.TempDir(), mark + "=" + r.layout}
	t.cmd.Stdout, t.cmd.Stderr = &t.stdout, &t.stderr
	t.cmd.WaitDelay = settleTime
	return t
}

// runTools starts all at once, and waits for all.
func (r *round) runTools() error {
	var running sync.WaitGroup
	for _, t := range r.tools {
		if err := t.cmd.Start(); err != nil {
			return err
		}
		running.Go(func() { t.err = t.cmd.Wait() })
	}
	running.Wait()
	return nil
}

// killSome kills tools, and what serves the layout, until the round is over.
func (r *round) killSome(over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(r.random.IntN(100)) * time.Millisecond):
		}
		if r.random.IntN(2) == 0 {
			r.killTool()
		} else {
			r.killServer()
		}
	}
}

// killTool kills one of the first half: the others are to survive.
func (r *round) killTool() {
	t := r.tools[r.random.IntN(max(1, len(r.tools)/2))]
	if t.cmd.Process != nil && !t.killed.Swap(true) && t.cmd.Process.Kill() == nil {
		r.killedTools++
	}
}

// killServer kills the process that owns the layout, if it is none of the tools.
func (r *round) killServer() {
	holder, err := control.Owner(r.layout)
	if err != nil || holder.PID == 0 || r.killedServers >= maxServers || r.isTool(holder.PID) {
		return
	}
	if p, err := os.FindProcess(holder.PID); err == nil && p.Kill() == nil {
		r.killedServers++
	}
}

// maxServers is how often what serves one layout is killed: there must be time for work.
const maxServers = 8

func (r *round) isTool(pid int) bool {
	for _, t := range r.tools {
		if t.cmd.Process != nil && t.cmd.Process.Pid == pid {
			return true
		}
	}
	return false
}

// told are the images that a tool says it has pushed, by name.
func (t *tool) told() map[string]string {
	told := map[string]string{}
	for line := range strings.Lines(t.stdout.String()) {
		if name, digest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && strings.HasSuffix(line, "\n") {
			told[name] = digest
		}
	}
	return told
}

// judgeTools demands that who was not killed has done all of its work.
func (r *round) judgeTools() error {
	var errs []error
	for _, t := range r.tools {
		r.started += strings.Count(t.stderr.String(), startedWords)
		r.pushed += len(t.told())
		if !t.killed.Load() && (t.err != nil || len(t.told()) != len(t.names)) {
			errs = append(errs, fmt.Errorf("process %d: %v, %d of %d pushed: %s", t.cmd.Process.Pid, t.err, len(t.told()), len(t.names), t.stderr.String()))
		}
	}
	if !r.kill && r.launcher != "in-process" && r.started != 1 {
		errs = append(errs, fmt.Errorf("%d registries were started", r.started))
	}
	return errors.Join(errs...)
}

// mark is an environment variable of the tools of a round.
const mark = "CROWD_LAYOUT"

// left are the processes that run yet, of those of the round: tools have a mark in their environment, and what
// serves the layout its name.
func (r *round) left() (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range all {
		environ, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(environ, []byte(mark+"="+r.layout+"\x00")) && !bytes.Contains(environ, r.asConfig()) {
			continue
		}
		pids = append(pids, filepath.Base(filepath.Dir(file)))
	}
	return pids
}

// awaitSilence demands that all processes end.
func (r *round) awaitSilence(ctx context.Context) error {
	deadline := time.Now().Add(r.idle + settleTime)
	for {
		holder, err := control.Owner(r.layout)
		if err != nil {
			return err
		}
		left := r.left()
		if len(left) == 0 && holder.PID == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%v after the end, process %d owns the layout, and these run: %v", r.idle+settleTime, holder.PID, left)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
