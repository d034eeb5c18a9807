//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// browser is chromium, which takes orders through a pipe: messages in JSON, each ended by a zero byte.
type browser struct {
	*shell
	orders  *os.File
	answers *os.File
	reader  *bufio.Reader
	last    int // the number of the last order
}

// browser starts chromium. The names of another host lead it to this machine. It asks nobody whether pages
// may reach what runs here, as browsers did for long, and as a user may have allowed.
func (s *shell) browser(otherHost string) *browser {
	s.Helper()
	ordersIn, orders, err := os.Pipe()
	s.check(err)
	answers, answersOut, err := os.Pipe()
	s.check(err)
	cmd := s.command(context.Background(), "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad",
		"--disable-features=LocalNetworkAccessChecks", "--host-resolver-rules=MAP "+otherHost+" 127.0.0.1",
		"--user-data-dir="+filepath.Join(s.temp, "chromium"), "--remote-debugging-pipe")
	cmd.ExtraFiles = []*os.File{ordersIn, answersOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := s.launch(cmd)
	ordersIn.Close()
	answersOut.Close()
	b := &browser{shell: s, orders: orders, answers: answers, reader: bufio.NewReader(answers)}
	s.Cleanup(func() {
		fmt.Fprint(orders, `{"id":0,"method":"Browser.close"}`, "\x00")
		within(patience, p.hasEnded)
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it was many processes
		orders.Close()
		answers.Close()
	})
	return b
}

// order gives an order, and waits for the answer to it. What else the browser tells is not listened to.
func (b *browser) order(session, method string, params, result any) {
	b.Helper()
	b.last++
	message := map[string]any{"id": b.last, "method": method, "params": params}
	if session != "" {
		message["sessionId"] = session
	}
	_, err := b.orders.Write(append(b.encode(message), 0))
	b.check(err)
	b.check(b.answers.SetReadDeadline(time.Now().Add(runTimeout)))
	for {
		raw, err := b.reader.ReadBytes(0)
		if err != nil {
			b.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Error  json.RawMessage
			Result json.RawMessage
		}
		b.check(json.Unmarshal(raw[:len(raw)-1], &answer))
		if answer.ID != b.last {
			continue
		}
		if answer.Error != nil {
			b.Fatalf("%s: %s", method, answer.Error)
		}
		b.check(json.Unmarshal(answer.Result, result))
		return
	}
}

// page is a page that is open.
type page struct {
	*browser
	session string
}

// open opens a page, whatever status it has, and returns when it is loaded.
func (b *browser) open(url string) *page {
	b.Helper()
	var target struct{ TargetID string }
	b.order("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.order("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &page{browser: b, session: attached.SessionID}
	var navigated struct{ ErrorText string }
	p.order(p.session, "Page.navigate", map[string]any{"url": url}, &navigated)
	if navigated.ErrorText != "" {
		b.Fatalf("%s: %s", url, navigated.ErrorText)
	}
	p.poll(url, func() bool {
		var at string
		p.evaluate("document.readyState + ' ' + location.href", &at)
		return at == "complete "+url
	})
	return p
}

// evaluate runs a script in the page, and waits for what it promises.
func (p *page) evaluate(script string, result any) {
	p.Helper()
	var done struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	p.order(p.session, "Runtime.evaluate", map[string]any{"expression": script, "awaitPromise": true, "returnByValue": true}, &done)
	if done.ExceptionDetails != nil {
		p.Fatalf("%.200s: %s", script, done.ExceptionDetails)
	}
	p.check(json.Unmarshal(done.Result.Value, result))
}

// call calls a function of one argument in the page.
func (p *page) call(function string, argument, result any) {
	p.Helper()
	p.evaluate(fmt.Sprintf("(%s)(%s)", function, p.encode(argument)), result)
}
