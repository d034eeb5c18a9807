package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/memory"
)

// idle is a client of no connection.
func idle() *client { return &client{conn: *http.NewResponseController(httptest.NewRecorder())} }

func TestARoomIsForSoManyAndNoMore(t *testing.T) {
	r := newRoom("things", 2, defaultPatience)
	place, err := r.enter(t.Context(), idle())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.await(t.Context(), idle()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.enter(t.Context(), idle()); !errors.Is(err, berth.ErrTooManyRequests) || !strings.Contains(err.Error(), "things") {
		t.Errorf("a third: %v", err)
	}
	place.leave()
	if _, err := r.enter(t.Context(), idle()); err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

// Who waits for a place gets it when it is free, or hears after a while that there is none.
func TestWaitingForARoom(t *testing.T) {
	r := newRoom("things", 1, defaultPatience)
	place, err := r.enter(t.Context(), idle())
	if err != nil {
		t.Fatal(err)
	}
	r.patience = time.Millisecond
	if _, err := r.await(t.Context(), idle()); !errors.Is(err, berth.ErrTooManyRequests) {
		t.Errorf("nobody leaves: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.await(gone, idle()); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that is gone: %v", err)
	}
	r.patience = time.Hour
	go place.leave()
	if _, err := r.await(t.Context(), idle()); err != nil {
		t.Errorf("one leaves: %v", err)
	}
}

// Of those who have a place, who has stood still for longest goes. Who is at work stays.
func TestWhoIsCutOff(t *testing.T) {
	r := newRoom("things", 4, defaultPatience)
	working, brief, long, longer := idle(), idle(), idle(), idle()
	for _, c := range []*client{working, brief, long, longer} {
		r.seat(c)
	}
	brief.awaits(r.patience / 2)
	long.awaits(2 * r.patience)
	longer.awaits(3 * r.patience)
	for _, want := range []bool{true, true, false} {
		if got := r.press(); got != want {
			t.Errorf("somebody was cut off: %v, want %v", got, want)
		}
	}
	if brief.still() == 0 || long.still() != 0 || longer.still() != 0 {
		t.Errorf("still: %v, %v, %v", brief.still(), long.still(), longer.still())
	}
}

// Clients that take a place each and stand still are cut off when others come.
func TestPlacesAreTakenFromThoseWhoStandStill(t *testing.T) {
	h := New(memory.New(), nil).(*handler)
	for _, r := range []*room{h.limiter.arriving, h.limiter.leaving} {
		r.patience = 50 * time.Millisecond
	}
	large := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[],"annotations":{"a":"` + strings.Repeat("x", 4000<<10) + `"}}`
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	put := func() {
		resp, err := http.DefaultClient.Do(request(t, http.MethodPut, srv.URL+"/v2/x/manifests/v1", large))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Errorf("PUT: %s", resp.Status)
		}
	}
	put()
	half := "PUT /v2/x/manifests/v1 HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 4000000\r\n\r\n" + large[:2*smallBody]
	get := "GET /v2/x/manifests/v1 HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	for range maxArriving {
		say(t, host, half)
		say(t, host, strings.Repeat(get, 4)) // more than the system takes in their place
	}
	waitFor(t, func() bool { return stuck(h.limiter.arriving) == maxArriving && stuck(h.limiter.leaving) == maxLeaving })
	put()
	resp, err := http.DefaultClient.Do(request(t, http.MethodGet, srv.URL+"/v2/x/manifests/v1", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != large {
		t.Errorf("GET: %s, %d bytes, %v", resp.Status, len(body), err)
	}
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// say sends something and reads nothing.
func say(t *testing.T, host, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.(*net.TCPConn).SetReadBuffer(2 << 10)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// stuck counts those who have stood still for too long.
func stuck(r *room) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.inside {
		if p.client.still() > r.patience {
			n++
		}
	}
	return n
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it has not come about")
		}
	}
}
