//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// probeInterval is the rest between two questions of a prober.
	probeInterval = 4 * time.Millisecond
	// probePatience is how long one question may go without its answer, refusals and all.
	probePatience = 20 * time.Second
	// maxMemory is what the server may have of its own at any time, in KiB.
	maxMemory = 150 << 10
	// maxLeftOver is how many files more than at first the server may have open afterwards.
	maxLeftOver = 24
	// maxThreads is how many threads it may have: some 128 that are at a file, and a few.
	maxThreads = 200
)

// victim is a server that is attacked, with an image at app/hello:v1.
type victim struct {
	*shell
	process         *process
	address, layout string
	blob            digest.Digest
	header          string // of the prober's requests
	files           int    // at first
	calling         []*caller
	begins          bool // uploads that are left as they are, to be gone on with
}

func (s *shell) victim(flags ...string) *victim {
	s.Helper()
	v := &victim{shell: s, layout: s.path("layout")}
	v.blob = s.smallImage(v.layout, "app/hello:v1", 1).blobs[1].Digest
	v.process, v.address = s.serve(v.layout, flags...)
	v.files = v.openFiles()
	return v
}

// openFiles counts the server's file descriptors.
func (v *victim) openFiles() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.process.cmd.Process.Pid))
	return len(entries)
}

func (v *victim) status(name string) int { return statusOf(v.process.cmd.Process.Pid, name) }

// statusOf is a number that the system has about a process: of bytes, in KiB.
func statusOf(pid int, name string) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	match := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+)`).FindSubmatch(text)
	if match == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(match[1]))
	return n
}

// during asks the server all the time while it is attacked, and examines it afterwards.
func (v *victim) during(attack func()) {
	v.Helper()
	probing := v.start(proberCommand, proberCommand, v.address, string(v.blob), v.header)
	probing.await(&probing.stdout, probingLine)
	stop := make(chan struct{})
	var watching sync.WaitGroup
	memory := 0
	watching.Go(func() {
		for every(stop, probeInterval) {
			memory = max(memory, v.status("RssAnon"))
		}
	})
	begin := time.Now()
	attack()
	took := time.Since(begin)
	close(stop)
	watching.Wait()
	probing.stop()
	v.Logf("%s%v; at most %d MiB of its own, %d MiB in all", &probing.stdout, took.Round(time.Millisecond), memory>>10, v.status("VmHWM")>>10)
	if memory >= maxMemory {
		v.Errorf("the server had %d KiB of memory, want less than %d", memory, maxMemory)
	}
	v.survived()
}

// every waits for a while, and reports whether to go on.
func every(stop <-chan struct{}, interval time.Duration) bool {
	select {
	case <-stop:
		return false
	case <-time.After(interval):
		return true
	}
}

// survived makes sure that the server works as before, has let go of everything, and that its layout is as
// it should be.
func (v *victim) survived() {
	v.Helper()
	v.poll("the server to let go of its files", func() bool { return v.openFiles() <= v.files+maxLeftOver })
	if threads := v.status("Threads"); threads > maxThreads {
		v.Errorf("the server has %d threads", threads)
	}
	if v.header == "" {
		one, err := v.pushInto(v.address, "app/after", "v1")
		v.check(err)
		v.complete(v.address, []pushed{one})
	}
	v.process.stop()
	v.must("berth", "fsck", "--layout", v.layout)
	if !slices.Contains(v.namesOf(v.layout), "app/hello:v1") {
		v.Errorf("index.json has lost app/hello:v1")
	}
	v.blobsOf(v.layout)
	left, err := filepath.Glob(filepath.Join(v.layout, ".berth", "ingest", "*"))
	v.check(err)
	if len(left) > 0 && !v.begins {
		v.Errorf("%d files are left of what never arrived, like %s", len(left), left[0])
	}
}

// dial connects to the server.
func (v *victim) dial() (*caller, error) { return dial(v.address) }

func dial(address string) (*caller, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	return &caller{conn.(*net.TCPConn), bufio.NewReaderSize(conn, 512)}, nil
}

// caller is a client that speaks HTTP by hand.
type caller struct {
	*net.TCPConn
	in *bufio.Reader
}

// ask sends what it is given, and returns the answer without its body.
func (c *caller) ask(method, request string) (*http.Response, error) {
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte(request)); err != nil {
		return nil, err
	}
	return c.hear(method)
}

func (c *caller) hear(method string) (*http.Response, error) {
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// proberCommand makes of this program one that asks a server small questions, apart from the program that attacks
// it: what it measures is about the server then.
const proberCommand = "e2e-prober"

var probingLine = regexp.MustCompile(`(?m)^(probing)$`)

// actAsProber probes the address, blob and header that it is given until it is asked to end, and then tells how
// long the answers took. It fails if one did not come.
func actAsProber(args []string) {
	if len(args) != 4 || args[0] != proberCommand {
		return
	}
	asked, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	probers := []*prober{newProber("one connection", true, args[1:]), newProber("new connections", false, args[1:])}
	var all sync.WaitGroup
	for _, p := range probers {
		all.Go(func() { p.run(asked.Done()) })
	}
	fmt.Println("probing")
	all.Wait()
	code := 0
	for _, p := range probers {
		fmt.Println(p)
		if p.lost != nil {
			fmt.Fprintln(os.Stderr, p.lost)
			code = 1
		}
	}
	os.Exit(code)
}

// prober asks questions, one after the other.
type prober struct {
	name, address string
	keep          bool
	conn          *caller
	took          []time.Duration
	refusals      int // answers other than 200, and none
	questions     [][2]string
	lost          error
}

func newProber(name string, keep bool, args []string) *prober {
	ask := func(method, path string) [2]string {
		return [2]string{method, fmt.Sprintf("%s /v2/%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, path, args[0], args[2])}
	}
	return &prober{name: name, address: args[0], keep: keep, questions: [][2]string{
		ask("GET", ""), ask("HEAD", "app/hello/blobs/"+args[1]), ask("GET", "app/hello/manifests/v1")}}
}

func (p *prober) run(stop <-chan struct{}) {
	defer p.hangUp()
	for i := 0; every(stop, probeInterval) && p.lost == nil; i++ {
		p.probe(p.questions[i%len(p.questions)])
	}
}

// probe asks until the answer is 200. It counts how long that takes altogether.
func (p *prober) probe(question [2]string) {
	for begin := time.Now(); ; time.Sleep(probeInterval) {
		status, err := p.once(question)
		if status == http.StatusOK {
			p.took = append(p.took, time.Since(begin))
			return
		}
		p.refusals++
		if time.Since(begin) > probePatience {
			p.lost = fmt.Errorf("%.40q was not answered within %v: status %d, %v", question[1], probePatience, status, err)
			return
		}
	}
}

func (p *prober) once(question [2]string) (status int, err error) {
	if p.conn == nil {
		if p.conn, err = dial(p.address); err != nil {
			return 0, err
		}
	}
	resp, err := p.conn.ask(question[0], question[1])
	if err != nil || !p.keep || resp.Close {
		p.hangUp()
	}
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

func (p *prober) hangUp() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// String is what was measured.
func (p *prober) String() string {
	if len(p.took) == 0 {
		return p.name + ": nothing was answered"
	}
	slices.Sort(p.took)
	at := func(percent int) time.Duration {
		return p.took[(len(p.took)-1)*percent/100].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%s: %d answers, %d refusals; median %v, 99th percentile %v, longest %v",
		p.name, len(p.took), p.refusals, at(50), at(99), at(100))
}

// hangUp closes the connections of an attack.
func (v *victim) hangUp() {
	for _, c := range v.calling {
		c.Close()
	}
	v.calling = nil
}
