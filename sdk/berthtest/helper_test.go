package berthtest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/berthtest"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// The test binary is the plugin too, for host.Self.
func TestMain(m *testing.M) {
	embedded.Main()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // a plugin under the race detector would linger for a second
	code := m.Run()
	t.end()
	os.Exit(code)
}

// t is what a test has, for examples, which have none.
var t = &standIn{}

// standIn stands in for a test, and keeps what fails it.
type standIn struct {
	testing.TB
	cleanups []func()
	failures []string
}

func (s *standIn) Helper()                  {}
func (s *standIn) Context() context.Context { return context.Background() }
func (s *standIn) Cleanup(f func())         { s.cleanups = append(s.cleanups, f) }

func (s *standIn) TempDir() string {
	dir, err := os.MkdirTemp("", "berthtest-example-")
	if err != nil {
		panic(err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (s *standIn) Errorf(format string, args ...any) {
	s.failures = append(s.failures, fmt.Sprintf(format, args...))
}

func (s *standIn) Fatal(args ...any) { s.Fatalf("%s", fmt.Sprint(args...)) }

func (s *standIn) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}

func (s *standIn) end() {
	for len(s.cleanups) > 0 {
		last := len(s.cleanups) - 1
		clean := s.cleanups[last]
		s.cleanups = s.cleanups[:last]
		clean()
	}
}

// failures are those of a test that does this.
func failures(work func(testing.TB)) []string {
	s := &standIn{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		work(s)
	}()
	<-done
	s.end()
	return s.failures
}

// known are the credentials of a user.
func known(user, password string) auth.CredentialFunc {
	return func(context.Context, string) (auth.Credential, error) {
		return auth.Credential{Username: user, Password: password}, nil
	}
}

// client finds images as a program does that has nothing of berth's but its client.
func client(user, password string) *sdk.Images {
	return sdk.NewImages(&sdk.Options{Credentials: known(user, password)})
}

// answer is what a program hears that knows nothing of berth.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of the request, or of reading its answer
}

// once is a client that sends nothing twice: net/http repeats a GET where a connection was cut that it had kept.
var once = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// ask asks the registry. Credentials are those of the Authorization header.
func ask(ctx context.Context, r *berthtest.Registry, method, path, credentials, body string) answer {
	req, err := http.NewRequestWithContext(ctx, method, r.URL()+path, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	if credentials != "" {
		req.Header.Set("Authorization", credentials)
	}
	resp, err := once.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(content), err}
}

// eventually waits for what will come about in a moment.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
