package retry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthoci/berth/internal/retry"
)

func TestWaitEndsWithItsTimeOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if err := retry.Wait(t.Context(), time.Minute); err != nil || time.Since(begin) != time.Minute {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := retry.Wait(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := retry.Wait(ctx, 0); err != nil {
			t.Errorf("for nothing: %v", err)
		}
	})
}

func TestARequestHasItsBodyFromTheStart(t *testing.T) {
	req, err := http.NewRequest(http.MethodPut, "http://registry.example/", strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	io.CopyN(io.Discard, req.Body, 3)
	fresh, err := retry.Request(req)
	if err != nil || !retry.Possible(req) || fresh == req {
		t.Fatalf("got %v, %v", fresh, err)
	}
	if got, err := io.ReadAll(fresh.Body); string(got) != "content" {
		t.Errorf("read %q, %v", got, err)
	}
	broken := errors.New("gone")
	req.GetBody = func() (io.ReadCloser, error) { return nil, broken }
	if _, err := retry.Request(req); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if req.GetBody = nil; retry.Possible(req) {
		t.Error("a body that is read once can be sent twice")
	}
}

func TestARequestWithoutABodyIsItself(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		req := &http.Request{Body: body}
		if same, err := retry.Request(req); same != req || err != nil || !retry.Possible(req) || retry.HasBody(req) {
			t.Errorf("%v: got %v, %v", body, same, err)
		}
		retry.CloseBody(req)
	}
}
