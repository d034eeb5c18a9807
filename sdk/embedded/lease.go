package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
)

// errPrivate is what those hear who do not own a private plugin.
func errPrivate(info plugin.Info) error {
	return fmt.Errorf("layout %s: %w: process %d is a private registry of another program; end that program, or name another layout", info.Layout, berth.ErrLayoutInUse, info.PID)
}

// lease is what one host holds, and the addresses that were opened for it.
type lease struct {
	controller *controller
	opts       plugin.LeaseOptions
	since      time.Time
	stopLogs   func()
	endpoint   plugin.Endpoint
	done       chan struct{}
	closing    sync.Once
	err        error // of closing

	mu     sync.Mutex // guards the fields below
	sites  []*site
	closed bool
}

// prepare does what the host wants to have from the beginning.
func (l *lease) prepare(ctx context.Context) (err error) {
	if d := l.opts.Durability; d != "" {
		durability, err := ocilayout.ParseDurability(d)
		if err == nil {
			err = l.controller.layout.Raise(ctx, durability)
		}
		if err != nil {
			return err
		}
	}
	if l.opts.Listen != nil {
		l.endpoint, err = l.Listen(ctx, *l.opts.Listen)
	}
	return err
}

func (l *lease) Grant() plugin.Grant {
	return plugin.Grant{Plugin: l.controller.info, Endpoint: l.endpoint}
}

func (l *lease) Listen(_ context.Context, opts plugin.ListenOptions) (plugin.Endpoint, error) {
	if l.opts.Key != l.controller.cfg.Key && !opts.ReadOnly {
		return plugin.Endpoint{}, errPrivate(l.controller.info)
	}
	s, err := l.controller.open(opts, l.opts.AccessLog)
	if err != nil {
		return plugin.Endpoint{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return plugin.Endpoint{}, errors.Join(plugin.ErrEnding, s.close())
	}
	l.sites = append(l.sites, s)
	return s.endpoint, nil
}

func (l *lease) Import(ctx context.Context, repository string, d digest.Digest, from berth.LocalFile) (berth.ImportMethod, error) {
	if l.opts.Key != l.controller.cfg.Key {
		return "", errPrivate(l.controller.info)
	}
	repo, err := l.controller.layout.Repository(repository)
	if err != nil {
		return "", err
	}
	return repo.(berth.Importer).ImportBlob(ctx, d, from)
}

func (l *lease) Ending() <-chan struct{} { return l.controller.use.over }

func (l *lease) Stopped() bool { return l.controller.use.wasStopped() }

func (l *lease) Done() <-chan struct{} { return l.done }

// Close lets requests that are under way finish, for a while, closes the addresses, and flushes.
func (l *lease) Close() error {
	l.closing.Do(func() {
		l.mu.Lock()
		l.closed = true
		sites := l.sites
		l.mu.Unlock()
		for _, s := range sites {
			l.err = errors.Join(l.err, s.close())
		}
		l.err = errors.Join(l.err, l.flush())
		l.controller.release(l)
		close(l.done)
	})
	return l.err
}

// flush does not wait for a checkout, after which index.json is brought up to date anyway.
func (l *lease) flush() error {
	if l.controller.upkeep.isHeld() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	err := l.controller.layout.Flush(ctx)
	if ctx.Err() != nil || errors.Is(err, ocilayout.ErrClosed) {
		return nil
	}
	return err
}

func (l *lease) status() plugin.LeaseStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	status := plugin.LeaseStatus{Holder: l.opts.Holder, Since: l.since.UTC()}
	for _, s := range l.sites {
		status.Addresses = append(status.Addresses, plugin.Endpoint{Address: s.endpoint.Address, Socket: s.endpoint.Socket})
	}
	return status
}
