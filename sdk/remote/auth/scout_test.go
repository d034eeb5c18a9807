package auth

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
)

// many sends so many requests at once, and returns how many got status 200.
func many(t *testing.T, rt http.RoundTripper, n int) (welcome int) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	for range n {
		req := request(t, http.MethodHead, registryURL+"/v2/a/manifests/v1", nil, pullA)
		all.Go(func() {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				return
			}
			resp.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			if resp.StatusCode == http.StatusOK {
				welcome++
			}
		})
	}
	all.Wait()
	return welcome
}

func TestOfManyFirstRequestsOneHearsTheChallenge(t *testing.T) {
	registry, realm := &fakeRegistry{}, &fakeRealm{}
	if got := many(t, pair(registry, realm), 64); got != 64 {
		t.Errorf("%d of 64 were welcome", got)
	}
	bare := 0
	for _, authorization := range registry.authorizations() {
		if authorization == "" {
			bare++
		}
	}
	if bare != 1 || len(registry.authorizations()) != 65 || len(realm.requests()) != 1 {
		t.Errorf("%d requests came bare, %d in all, %d to the token server", bare, len(registry.authorizations()), len(realm.requests()))
	}
}

// refusing fails some requests, before they reach anybody.
type refusing struct {
	http.RoundTripper
	mu   sync.Mutex // guards the field below
	fail func() error
}

func (r *refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	err := r.fail()
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r.RoundTripper.RoundTrip(req)
}

func TestAFirstRequestThatFailsDoesNotHoldBackTheOthers(t *testing.T) {
	registry := &fakeRegistry{accept: acceptOnly("")}
	rt := pair(registry, nil)
	first := true
	rt.Base = &refusing{RoundTripper: rt.Base, fail: func() error {
		if was := first; was {
			first = false
			return errors.New("no route to host")
		}
		return nil
	}}
	if got := many(t, rt, 8); got != 7 {
		t.Errorf("%d of 7 were welcome", got)
	}
}

func TestAFirstRequestThatIsCalledOffIsFollowedByAnother(t *testing.T) {
	o := &origin{}
	o.meet(t.Context()) // goes ahead
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		o.meet(t.Context())
	}()
	o.back(false)
	<-waiting
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	o.meet(ended) // does not wait for the second one
	o.back(true)
	o.meet(t.Context())
	if o.scout != nil {
		t.Error("a request goes ahead, though the host has answered")
	}
}
